"""Free main memory of the machine, within the limits of the job."""

from pathlib import Path


def free_memory() -> int | None:
    """Return the bytes of memory left by the machine and by the control groups (cgroups) of a job, None if unknown."""
    free = []
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free.append(1024 * int(lines["MemAvailable"].split()[0]))
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except (OSError, KeyError, ValueError):  # not Linux
        return min(free, default=None)
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers == "":  # version 2: every group above has a limit as well
            root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = Path("/sys/fs/cgroup/memory")
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = root / path.lstrip("/")
        for parent in [folder, *folder.parents]:
            if parent == root.parent:
                break
            try:
                limit, used = int((parent / names[0]).read_text()), int((parent / names[1]).read_text())
                # cached files count as used, but the kernel drops them when memory is needed
                lines = dict(line.split() for line in (parent / "memory.stat").read_text().splitlines())
                free.append(limit - used + int(lines[names[2]]))
            except (OSError, KeyError, ValueError):  # no limit ("max"), or hidden inside a container
                continue
    return min(free)
