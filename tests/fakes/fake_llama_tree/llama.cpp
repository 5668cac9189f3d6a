// The shared library that the programs must find wherever a build is moved to.
extern "C" int fake_build_number() { return BUILD_NUMBER; }
