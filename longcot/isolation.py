"""The kernel's own means of isolation, called directly: namespaces, mounts, landlock, seccomp.

Only the box of `longcot.sandbox` runs these functions, in a process of its own (`longcot.cell`);
nothing here imports anything but the standard library, for the box has nothing else.
Man pages: user_namespaces(7), pivot_root(2), mount_setattr(2), landlock(7), seccomp(2).
"""

import ctypes
import os
import platform
import stat
import struct
from pathlib import Path

NEW_NS, NEW_CGROUP, NEW_UTS, NEW_IPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEW_USER, NEW_PID, NEW_NET = 0x10000000, 0x20000000, 0x40000000
ALL_NEW = NEW_NS | NEW_CGROUP | NEW_UTS | NEW_IPC | NEW_USER | NEW_PID | NEW_NET
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")  # names in /proc/self/ns
INSIDE = 1000  # user and group within the box; they own nothing but the scratch folder
NOBODY = 65534  # who the box's processes are outside when root starts it
SCRATCH = "/scratch"
DEVICES = ("null", "zero", "full", "random", "urandom")
_NOSUID, _NODEV, _NOEXEC, _REC, _PRIVATE, _DETACH = 2, 4, 8, 16384, 1 << 18, 2
_READ_ONLY = 1  # MOUNT_ATTR_RDONLY; the three above have the same values as mount attributes
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR, _LANDLOCK = 428, 429, 442, 444  # alike on both machines
_EMPTY_PATH, _RECURSIVE, _HERE = 0x1000, 0x8000, -100
_NO_NEW_PRIVILEGES, _DUMPABLE, _DEATH_SIGNAL, _SECCOMP, _DROP_BOUND = 38, 4, 1, 22, 24

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: int | bytes | None) -> int:
    """Call a libc function; raises OSError with its name when it returns -1."""
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = getattr(_libc, name)(*given)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


# ---- system calls

# What an ordinary Python program needs: name, number on x86_64, number on aarch64. Everything else
# does not exist inside: ptrace, bpf, io_uring, keyctl, mount, unshare, setns, pidfd, memfd, System
# V memory, sockets, priorities ... A call refused as "not implemented" makes libc take the old way.
SYSCALLS = """
read 0 63, write 1 64, open 2 -, close 3 57, stat 4 -, fstat 5 80, lstat 6 -, poll 7 -,
lseek 8 62, mmap 9 222, mprotect 10 226, munmap 11 215, brk 12 214, rt_sigaction 13 134,
rt_sigprocmask 14 135, rt_sigreturn 15 139, ioctl 16 29, pread64 17 67, pwrite64 18 68,
readv 19 65, writev 20 66, access 21 -, pipe 22 -, select 23 -, sched_yield 24 124,
mremap 25 216, msync 26 227, mincore 27 232, madvise 28 233, dup 32 23, dup2 33 -, pause 34 -,
nanosleep 35 101, getitimer 36 102, alarm 37 -, setitimer 38 103, getpid 39 172,
sendfile 40 71, sendto 44 206, recvfrom 45 207, recvmsg 47 212, fork 57 -, vfork 58 -, execve 59 221,
exit 60 93, wait4 61 260, kill 62 129, uname 63 160, fcntl 72 25, flock 73 32, fsync 74 82,
fdatasync 75 83, truncate 76 45, ftruncate 77 46, getdents 78 -, getcwd 79 17, chdir 80 49,
fchdir 81 50, rename 82 -, mkdir 83 -, rmdir 84 -, creat 85 -, link 86 -, unlink 87 -,
symlink 88 -, readlink 89 -, chmod 90 -, fchmod 91 52, umask 95 166, gettimeofday 96 169,
getrlimit 97 163, getrusage 98 165, sysinfo 99 179, times 100 153, getuid 102 174,
getgid 104 176, geteuid 107 175, getegid 108 177, setpgid 109 154, getppid 110 173,
getpgrp 111 -, setsid 112 157, getgroups 115 158, getresuid 118 148, getresgid 120 150,
getpgid 121 155, getsid 124 156, rt_sigpending 127 136, rt_sigtimedwait 128 137,
rt_sigsuspend 130 133, sigaltstack 131 132, utime 132 -, statfs 137 43, fstatfs 138 44,
getpriority 140 141, sched_getparam 143 121, sched_getscheduler 145 120,
sched_get_priority_max 146 125, sched_get_priority_min 147 126, arch_prctl 158 -,
setrlimit 160 164, gettid 186 178, tkill 200 130, time 201 -, futex 202 98,
sched_getaffinity 204 123, epoll_create 213 -, getdents64 217 61, set_tid_address 218 96,
fadvise64 221 223, clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115,
exit_group 231 94, epoll_wait 232 -, epoll_ctl 233 21, tgkill 234 131, utimes 235 -,
waitid 247 95, openat 257 56, mkdirat 258 34, newfstatat 262 79, unlinkat 263 35,
renameat 264 38, linkat 265 37, symlinkat 266 36, readlinkat 267 78, fchmodat 268 53,
faccessat 269 48, pselect6 270 72, ppoll 271 73, set_robust_list 273 99,
get_robust_list 274 100, utimensat 280 88, epoll_pwait 281 22, eventfd 284 -, eventfd2 290 19,
epoll_create1 291 20, dup3 292 24, pipe2 293 59, preadv 295 69, pwritev 296 70, getcpu 309 168,
renameat2 316 276, getrandom 318 278, membarrier 324 283, copy_file_range 326 285,
statx 332 291, rseq 334 293, close_range 436 436, faccessat2 439 439
"""
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, audit architecture
# Allowed only when their first argument passes: no new namespace, one's own limits, a pair of
# sockets with nobody else at its ends (asyncio cannot start without one).
CHECKED = {"clone": (56, 220), "prlimit64": (302, 261), "socketpair": (53, 199)}
_LOAD, _EQUAL, _GREATER, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
_ALLOW, _KILL, _NOT_PERMITTED, _NOT_THERE = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026


def build_filter(machine: str) -> bytes:
    """The seccomp filter for `machine` as BPF instructions: the calls above, nothing else.

    A process of another architecture is killed; raises OSError for a machine without a table.
    """
    if machine not in MACHINES:
        raise OSError(f"no table of system calls for {machine}; known: {', '.join(MACHINES)}")
    column, architecture = MACHINES[machine]
    words = (entry.split() for entry in SYSCALLS.split(","))
    numbers = sorted(int(word[1 + column]) for word in words if word[1 + column] != "-")
    load, first = (_LOAD, 0, 0, 0), (_LOAD, 0, 0, 16)  # the number, half of the first argument
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), load]
    refuse, allow = (_RETURN, 0, 0, _NOT_PERMITTED), (_RETURN, 0, 0, _ALLOW)
    tests = {
        "clone": (_BITS, 1, 0, ALL_NEW | 0x80),  # and a new time namespace
        "prlimit64": (_EQUAL, 0, 1, 0),
        "socketpair": (_EQUAL, 0, 1, 1),
    }
    for name, test in tests.items():
        steps += [(_EQUAL, 0, 4, CHECKED[name][column]), first, test, allow, refuse]
    steps += _search(_ranges(numbers))
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _search(ranges: list[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """Instructions that look a number up by halving, for the kernel tries every number at loading."""
    if len(ranges) == 1:
        low, high = ranges[0]
        inside = [(_GREATER, 1, 0, high), (_AT_LEAST, 1, 0, low)]
        return [*inside, (_RETURN, 0, 0, _NOT_THERE), (_RETURN, 0, 0, _ALLOW)]
    half = len(ranges) // 2
    lower, upper = _search(ranges[:half]), _search(ranges[half:])
    return [(_AT_LEAST, len(lower), 0, ranges[half][0]), *lower, *upper]


def load_filter(program: bytes) -> None:
    """Put this process, and all it will start, under the filter; it cannot be taken off again."""
    held = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held))
    call("prctl", _SECCOMP, 2, header, 0, 0)


# ---- files


def landlock_version() -> int:
    """The kernel's landlock version, 0 where it has none or it is switched off."""
    return max(0, _libc.syscall(_LANDLOCK, None, ctypes.c_long(0), ctypes.c_long(1)))


def lock_rules() -> int:
    """Landlock rules as a file: read and execute everywhere, write only in the scratch folder and
    /dev/null; no TCP, and signals and abstract sockets only among ourselves, where the kernel's
    version knows of them. -1 where it has no landlock."""
    version = landlock_version()
    if not version:
        return -1
    known = {1: 1 << 13, 2: 1 << 14, 3: 1 << 15, 4: 1 << 15}.get(version, 1 << 16) - 1
    network, scope = (3 if version >= 4 else 0), (3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    execute, write, read, list_folder, truncate = 1, 2, 4, 8, 1 << 14
    devices = 1 << 6 | 1 << 11  # making character and block devices
    rules = call("syscall", _LANDLOCK, struct.pack("QQQ", known, network, scope)[:size], size, 0)
    allowances = {"/": execute | read | list_folder, SCRATCH: known & ~devices & ~execute}
    allowances["/dev/null"] = known & (write | read | truncate)
    for path, allowed in allowances.items():
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        call("syscall", _LANDLOCK + 1, rules, 1, struct.pack("=Qi", allowed, place), 0)
        os.close(place)
    return rules


def lock_files(rules: int) -> None:
    """Put this process, and all it will start, under landlock rules."""
    call("syscall", _LANDLOCK + 2, rules, 0)


def _restrict_mount(place: int, path: bytes, attributes: int, how: int) -> None:
    call("syscall", _MOUNT_SETATTR, place, path, how, struct.pack("QQQQ", attributes, 0, 0, 0), 32)


def build_root(binds: dict[str, str], links: dict[str, str]) -> None:
    """Make a root of nothing but `binds` (path inside: path outside, read-only), `links` (path
    inside: target) and devices, and move into it; the old root is at /old until `finish_root`.

    Whoever calls this has just entered new namespaces. Root can still open what only root can see
    here, and is nobody from then on.
    """
    call("mount", None, b"/", None, _REC | _PRIVATE, None)
    devices = {f"/dev/{name}": f"/dev/{name}" for name in DEVICES}
    trees = {}
    for path, source in (binds | devices).items():
        tree = call("syscall", _OPEN_TREE, _HERE, source.encode(), 1 | _RECURSIVE)
        attributes = _NOSUID if path in devices else _NOSUID | _NODEV | _READ_ONLY
        _restrict_mount(tree, b"", attributes, _EMPTY_PATH | _RECURSIVE)
        trees[path] = tree
    become_nobody()
    base = "/proc"  # a folder that is always there; what it holds is back after the pivot
    call("mount", b"box", base.encode(), b"tmpfs", _NOSUID | _NODEV, b"size=1m,mode=755")
    os.chdir(base)
    for path, tree in trees.items():
        target = Path(path.lstrip("/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.mkdir() if stat.S_ISDIR(os.fstat(tree).st_mode) else target.touch()
        call(
            "syscall", _MOVE_MOUNT, tree, b"", _HERE, bytes(target), 4
        )  # from the open tree itself
        os.close(tree)
    for path, target in links.items():
        Path(path.lstrip("/")).symlink_to(target)
    for name in ("proc", "old", SCRATCH.lstrip("/")):
        Path(name).mkdir()
    call("syscall", {"x86_64": 155, "aarch64": 41}[platform.machine()], b".", b"old")
    os.chdir("/")


def finish_root() -> None:
    """Let go of the old root and make the new one read-only."""
    call("umount2", b"/old", _DETACH)
    Path("/old").rmdir()
    _restrict_mount(_HERE, b"/", _READ_ONLY, 0)


def restrict_devices() -> None:
    """Let nobody change the devices' own times and rights; they can be written to all the same."""
    for name in DEVICES:
        _restrict_mount(_HERE, f"/dev/{name}".encode(), _READ_ONLY | _NOEXEC, 0)


def mount_proc(only_ours: bool = False) -> None:
    """Mount this process namespace's own /proc; `only_ours`: no system files, no hidden tasks."""
    options = b"hidepid=2,subset=pid" if only_ours else None
    call("mount", b"proc", b"/proc", b"proc", _NOSUID | _NODEV | _NOEXEC, options)


def mount_scratch(size: int) -> None:
    """An empty scratch folder of `size` bytes, over whatever lies there."""
    options = f"size={size},nr_inodes=4096,mode=700".encode()
    call("mount", b"scratch", SCRATCH.encode(), b"tmpfs", _NOSUID | _NODEV | _NOEXEC, options)


def unmount_scratch() -> None:
    """Drop the scratch folder that was mounted last, with all that is in it."""
    call("umount2", SCRATCH.encode(), _DETACH)


# ---- users and privileges


def enter_namespaces() -> None:
    """New namespaces of every kind, where one user exists: INSIDE, who outside is the caller, or
    nobody if that is root (the limit on processes does not hold for root)."""
    root = os.geteuid() == 0
    if root:
        os.setgroups([])
    outside = (NOBODY, NOBODY) if root else (os.geteuid(), os.getegid())
    entered, tell = os.pipe()
    target = Path(f"/proc/{os.getpid()}")
    helper = os.fork()  # maps are written from outside the new namespace
    if helper == 0:
        try:
            os.read(entered, 1)
            if not root:
                (target / "setgroups").write_text("deny")
            for name, identity in zip(("uid_map", "gid_map"), outside, strict=True):
                (target / name).write_text(f"{INSIDE} {identity} 1")
            os._exit(0)
        finally:
            os._exit(1)
    call("unshare", ALL_NEW)
    os.write(tell, b".")
    if os.waitpid(helper, 0)[1]:
        raise OSError("the user map of the new namespace could not be written")
    os.close(entered)
    os.close(tell)


def become_nobody() -> None:
    """Be INSIDE, the only user there is; capabilities within the namespaces are kept."""
    os.setresgid(INSIDE, INSIDE, INSIDE)
    os.setresuid(INSIDE, INSIDE, INSIDE)


def forbid_gains() -> None:
    """No program started from here on gains anything, and no further user namespace is made."""
    call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        call("prctl", _DROP_BOUND, capability, 0, 0, 0)


def drop_capabilities() -> None:
    """Give up every capability of this process."""
    call("capset", struct.pack("Ii", 0x20080522, 0), bytes(24))


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    call("prctl", _DEATH_SIGNAL, 9, 0, 0, 0)


def set_dumpable(value: bool) -> None:
    """Whether others of the same user may look into this process."""
    call("prctl", _DUMPABLE, int(value), 0, 0, 0)
