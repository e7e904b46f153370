"""System calls that the kernel refuses in a process, by a filter of seccomp(2): real errors of a file system."""

import ctypes
import platform
import sys

#: Numbers of system calls.
_CALLS = {
    "x86_64": {"flock": 73, "fsync": 74},
    "aarch64": {"flock": 32, "fsync": 82},
}
SUPPORTED = sys.platform == "linux" and platform.machine() in _CALLS


class _Instruction(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_ushort),
        ("if_true", ctypes.c_ubyte),
        ("if_false", ctypes.c_ubyte),
        ("operand", ctypes.c_uint32),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction))]


def refuse(call, code):
    """Let a system call end with an error in this process and its children; OSError if seccomp is not allowed."""
    instructions = (_Instruction * 4)(
        _Instruction(0x20, 0, 0, 0),  # load the number of the system call
        _Instruction(0x15, 0, 1, _CALLS[platform.machine()][call]),  # this one?
        _Instruction(0x06, 0, 0, 0x00050000 | code),  # fail
        _Instruction(0x06, 0, 0, 0x7FFF0000),  # allow
    )
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(instructions), instructions)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp is not allowed")
