# SPDX-License-Identifier: Apache-2.0
"""The resident interpreter of a Python template.

Started before the snapshot, it imports what programs commonly use and then waits. Whoever gets the sandbox writes a
program to its standard input and closes it; the program runs as __main__, as if it had been given to `python3 -c`, with the
same output, traceback and exit status.

What was random before the snapshot is the same in every clone, so before the program runs every generator in this process
is seeded anew. One thing cannot be: the secret behind the hashes of strings, which orders sets, is the template's.
"""

import atexit
import gc
import importlib
import os
import sys

LIBRARIES = (
    "argparse", "ast", "base64", "bisect", "collections", "contextlib", "copy", "csv", "dataclasses", "datetime", "decimal",
    "enum", "functools", "hashlib", "heapq", "io", "itertools", "json", "linecache", "math", "operator", "pathlib", "random",
    "re", "secrets", "shutil", "signal", "statistics", "string", "struct", "subprocess", "tempfile", "textwrap", "threading",
    "time", "traceback", "types", "typing", "uuid",
)

PROGRAM = "<string>"  # what `python3 -c` calls it


def import_libraries():
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # a small image may lack some


def take_ready_descriptor():
    descriptor = int(os.environ.pop("WARMBOX_READY_FD", "-1"))
    if descriptor >= 0:
        os.set_inheritable(descriptor, False)
    return descriptor, os.getpid()


def say(ready, text):
    descriptor, pid = ready
    if descriptor >= 0 and os.getpid() == pid:  # not in a child that the program forked
        try:
            os.write(descriptor, text)
        except OSError:
            pass  # the program may have closed it


def read_program():
    pieces = []
    while piece := os.read(0, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def reseed():
    modules = sys.modules
    modules["random"].seed()  # from the kernel
    if "uuid" in modules:
        # Where the system has no generator of its own, uuid1() counts on from these.
        modules["uuid"]._last_timestamp = None
        modules["uuid"]._node = None
    if "tempfile" in modules:
        modules["tempfile"]._name_sequence = None
    if "ssl" in modules:
        modules["ssl"].RAND_add(os.urandom(64), 64.0)
    if "numpy.random" in modules:
        modules["numpy.random"].seed()


def new_main(source):
    """A fresh __main__, and the source where tracebacks look for it."""
    linecache = sys.modules["linecache"]
    main = type(sys)("__main__")
    main.__dict__.update(__builtins__=sys.modules["builtins"], __annotations__={})
    sys.modules["__main__"] = main
    sys.argv = ["-c"]
    sys.path[0] = ""  # not where this file is
    text = source.decode("utf-8", "replace")
    linecache.cache[PROGRAM] = (len(text), None, text.splitlines(keepends=True), PROGRAM)
    return main.__dict__


def run(source, namespace):
    """The exit status."""
    try:
        exec(compile(source, PROGRAM, "exec", dont_inherit=True), namespace)
    except SystemExit as exit_request:
        return exit_status(exit_request.code)
    except BaseException as error:
        report(error.with_traceback(error.__traceback__.tb_next))  # without the entry of this function
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def report(error):
    if sys.excepthook is sys.__excepthook__:
        sys.modules["traceback"].print_exception(error)  # which, unlike the hook, finds the source
    else:
        sys.excepthook(type(error), error, error.__traceback__)


def exit_status(code):
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def finish(status, ready):
    """Ends as the interpreter would, but does not take it apart: that would touch, and so copy, all of its memory.

    The agent is told the status first, because the kernel has to take the memory apart before anybody hears of the end.
    """
    try:
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        atexit._run_exitfuncs()
    except SystemExit as exit_request:
        status = exit_status(exit_request.code)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            status = status or 120  # as the interpreter when its output cannot be written
    say(ready, b"exit %d\n" % status)
    os._exit(status)


def main():
    import_libraries()
    sys.stdout.reconfigure(line_buffering=True)  # whoever watches sees lines as they come
    gc.collect()
    gc.freeze()  # later collections do not walk, and so copy, what is here now
    ready = take_ready_descriptor()
    say(ready, b"ready\n")
    source = read_program()
    reseed()
    finish(run(source, new_main(source)), ready)


main()
