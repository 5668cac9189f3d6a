print("a conversion script of this very commit")
