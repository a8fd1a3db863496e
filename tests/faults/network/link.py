"""A wire between this network namespace and another, which delays, loses and cuts: what netem does, where the
kernel has none. Two TUN devices, and this process between them.

Usage: link.py NETNS NAME NEAR FAR    (NEAR and FAR: the IPv4 addresses of its two ends)
Each line on stdin sets what it names, as JSON: {"delayMs": 20, "jitterMs": 5, "loss": 0.01, "down": false, "megabits": 20},
each way; "ok" on stdout when it is so. Jitter reorders packets. "only" limits loss, "down" and "extraMs", a further delay, to
packets from and to that address; null: all. Ends with its stdin.
"""
import ctypes, fcntl, heapq, json, os, random, select, socket, struct, subprocess, sys, time

netns, name, near, far = sys.argv[1:5]
MTU = 1400
# Longer queues than a router's, so that only the configured share is lost.
QUEUE = 4000


def tun(device, address, peer):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH", device.encode(), 0x1001))
    for words in (
        ["addr", "add", address, "peer", peer, "dev", device],
        ["link", "set", device, "mtu", str(MTU), "txqueuelen", str(QUEUE), "up"],
    ):
        subprocess.run(["ip", *words], check=True)
    return fd


def enter(path):
    with open(path) as there:
        if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns " + path)


ends = [tun(name, near, far)]
here = os.open("/proc/self/ns/net", os.O_RDONLY)
enter("/run/netns/" + netns)
ends.append(tun("wan", far, near))
enter("/proc/self/fd/%d" % here)

# As much as a router holds; more is dropped.
HELD = 256 * 1024
state = {"delayMs": 0, "jitterMs": 0, "extraMs": 0, "loss": 0, "down": False, "megabits": 0, "only": None}
free = {ends[0]: 0, ends[1]: 0}
chance = random.Random(1)
waiting = []
count = 0
poll = select.poll()
for fd in (0, *ends):
    poll.register(fd, select.POLLIN)
other = {ends[0]: ends[1], ends[1]: ends[0]}
text = b""
print("ready", flush=True)


def concerns(packet):
    only = state["only"]
    return only is None or socket.inet_aton(only) in (packet[12:16], packet[16:20])


def write(fd, packet):
    try:
        os.write(fd, packet)
    except OSError:
        pass  # The device is down: as lost as on a wire.


while True:
    now = time.monotonic()
    while waiting and waiting[0][0] <= now:
        _, _, fd, packet = heapq.heappop(waiting)
        write(fd, packet)
    timeout = max(0, (waiting[0][0] - now) * 1000) if waiting else None
    for fd, _ in poll.poll(timeout):
        if fd == 0:
            more = os.read(0, 65536)
            if not more:
                sys.exit(0)
            text += more
            while b"\n" in text:
                line, text = text.split(b"\n", 1)
                state.update(json.loads(line))
                print("ok", flush=True)
            continue
        for _ in range(64):
            try:
                packet = os.read(fd, 65536)
            except BlockingIOError:
                break
            faulty = concerns(packet)
            if faulty and (state["down"] or chance.random() < state["loss"]):
                continue
            delay = state["delayMs"] + (state["extraMs"] if faulty else 0)
            if faulty and state["jitterMs"]:
                delay += chance.random() * state["jitterMs"]
            due = time.monotonic()
            if state["megabits"]:
                each = state["megabits"] * 125000
                begins = max(due, free[fd])
                if (begins - due) * each > HELD:
                    continue
                due = free[fd] = begins + len(packet) / each
            elif delay == 0 and not waiting:
                write(other[fd], packet)
                continue
            count += 1
            due += delay / 1000
            heapq.heappush(waiting, (due, count, other[fd], packet))
