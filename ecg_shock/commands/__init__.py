"""Commands, one thin file each: parse, call, print."""
