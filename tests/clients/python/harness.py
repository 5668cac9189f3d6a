"""What the scripts of frameworks share; each tells, as JSON, what came of its exchanges with the server that is its first argument.

Nothing but this machine may be spoken to: each name that is looked up and each address that is connected to is checked.
"""

import ipaddress
import json
import sys

URL, TOOL = sys.argv[1:]
MODEL = "selftest"
ASK = [{"role": "user", "content": "hello"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": TOOL, "description": "the weather of a city", "parameters": CITY}

asked = []  # what tools were called with
outside = []  # what was wanted of other machines


def get_weather(city: str) -> str:
    """The weather of a city."""
    asked.append({"city": city})
    return "sunny"


def tell(**told):
    print(json.dumps({**told, "outside": outside}))


def _watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        _note(arguments[1][0])
    elif event == "socket.getaddrinfo":
        _note(arguments[0])


def _note(host):
    name = host.decode() if isinstance(host, bytes) else host
    try:
        near = name in (None, "", "localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        near = False
    if not near:
        outside.append(name)


sys.addaudithook(_watch)
