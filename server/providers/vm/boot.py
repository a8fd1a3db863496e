"""Starts the agent of a workspace in a virtual machine, as root, on every boot.

The server's secret of this build is exchanged for the agent's token. The secret is of no use once the
agent has registered, so what reads the machine's user data later learns nothing. Needs Python 3.6,
which cloud-init brings.

usage: boot.py PLAN, a JSON file as server/providers/vm/user-data.ts writes it
"""
import errno, gzip, http.client, io, json, os, shutil, ssl, subprocess, sys, tarfile, time, urllib.error, urllib.request, zlib

AGENT = "/opt/cde"
UNIT = "/etc/systemd/system/cde-agent.service"
KERNEL_UNIT = "/etc/systemd/system/cde-noded.service"
PROFILES = "/etc/cde/noded/profiles.yaml"
REPORT = "/run/cde/kernel.json"
METADATA = "http://169.254.169.254/latest/"
WAIT = 600
PAUSE = 2
MAX_PAUSE = 30
CUT = (OSError, EOFError, http.client.HTTPException, tarfile.TarError, zlib.error)


class Failure(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def say(text):
    print(text, flush=True)
    try:
        with open("/dev/console", "w") as console:
            console.write(text + "\n")
    except OSError:
        pass


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    return done.returncode, done.stdout.strip()


def must(code, *command):
    status, output = run(*command)
    if status != 0:
        raise Failure(code, "%s failed: %s." % (command[0], output.rstrip(".") or status))


def latest(plan):
    """The plan of this boot. A machine that was stopped boots with the user data that it remembers."""
    if not plan["metadata"] or not os.path.exists("/var/lib/cde/booted"):
        return plan
    try:
        ask = urllib.request.Request(METADATA + "api/token", method="PUT")
        ask.add_header("X-aws-ec2-metadata-token-ttl-seconds", "60")
        token = urllib.request.urlopen(ask, timeout=3).read().decode()
        ask = urllib.request.Request(METADATA + "user-data")
        ask.add_header("X-aws-ec2-metadata-token", token)
        text = urllib.request.urlopen(ask, timeout=3).read()
        text = gzip.decompress(text) if text[:2] == b"\x1f\x8b" else text
        config = json.loads(text.decode().split("\n", 1)[1])
        return json.loads(config["bootcmd"][0][-1])
    except (OSError, ValueError, LookupError):
        return plan


class Server:
    def __init__(self, plan):
        self.urls = plan["serverUrl"].split(",")
        self.token = None
        self.context = ssl.create_default_context()
        if plan["certificateAuthorities"]:
            self.context.load_verify_locations(cadata=plan["certificateAuthorities"])

    def ask(self, path, body=None):
        """The reply of the first server that gives one. Refusals are final; servers restart, so all else is repeated."""
        until = time.monotonic() + WAIT
        said = None
        pause = PAUSE
        while True:
            for url in self.urls:
                request = urllib.request.Request(url + path, data=body and json.dumps(body).encode())
                if body:
                    request.add_header("content-type", "application/json")
                if self.token:
                    request.add_header("authorization", "Bearer " + self.token)
                tls = {"context": self.context} if url.startswith("https:") else {}
                try:
                    reply = urllib.request.urlopen(request, timeout=60, **tls)
                    # The next call goes there first.
                    self.urls.sort(key=lambda each: each != url)
                    return reply
                except urllib.error.HTTPError as error:
                    if error.code in (400, 401, 403, 404, 409, 410, 422):
                        text = error.read(2000).decode("utf8", "replace")
                        raise Failure("boot-rejected", "The server rejected the machine: %s" % text)
                    problem = "%s: HTTP %d" % (url, error.code)
                except OSError as error:
                    problem = "%s: %s" % (url, error)
                if problem != said:
                    say("cde: the server does not answer: " + problem)
                    said = problem
            if time.monotonic() > until:
                raise Failure("server-unreachable", "The machine does not reach the server: %s." % said)
            time.sleep(pause)
            pause = min(pause * 2, MAX_PAUSE)


class Counted(io.RawIOBase):
    """Counts what was read, because a reply that was cut can look like one that ended."""

    def __init__(self, reply):
        self.reply = reply
        self.count = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        got = self.reply.readinto(buffer)
        self.count += got
        return got


def download(server, version, folder):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder, 0o755)
    reply = server.ask("/api/v1/agent/program/" + version)
    counted = Counted(reply)
    with tarfile.open(fileobj=io.BufferedReader(counted, 1 << 20), mode="r|gz") as archive:
        for entry in archive:
            if not entry.isfile() or "/" in entry.name:
                continue
            path = os.path.join(folder, entry.name)
            with open(path, "wb") as out:
                shutil.copyfileobj(archive.extractfile(entry), out, 1 << 20)
            os.chmod(path, entry.mode)
    while counted.readinto(bytearray(1 << 16)):
        pass
    size = int(reply.headers.get("content-length", counted.count))
    if counted.count < size:
        raise EOFError("%d of %d bytes arrived" % (counted.count, size))


def install(server, version):
    """The agent, unless the image or an earlier boot brought it."""
    marker = os.path.join(AGENT, "version")
    if os.path.exists(marker) and open(marker).read() == version:
        return
    began = time.monotonic()
    draft = AGENT + ".new"
    pause = PAUSE
    while True:
        try:
            download(server, version, draft)
            break
        except CUT as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise Failure("image-disk-full", "The root disk has no room for the agent: %s." % error)
            if time.monotonic() - began > WAIT:
                raise Failure("server-unreachable", "The agent could not be downloaded from the server: %s." % error)
            say("cde: the download of the agent was cut (%s): next attempt in %d s" % (error, pause))
            time.sleep(pause)
            pause = min(pause * 2, MAX_PAUSE)
    with open(os.path.join(draft, "version"), "w") as out:
        out.write(version)
    shutil.rmtree(AGENT, ignore_errors=True)
    os.rename(draft, AGENT)
    say("cde: agent downloaded in %d s" % (time.monotonic() - began))


def settle_kernel(plan):
    """Has noded maintain what the template wants of this kernel, and waits until it is so."""
    kernel = plan.get("kernel")
    if not kernel:
        # Of an earlier boot.
        if os.path.exists(KERNEL_UNIT):
            os.unlink(KERNEL_UNIT)
        return
    began = time.monotonic()
    for path, text in ((PROFILES, kernel["profiles"]), (KERNEL_UNIT, kernel["unit"])):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write(path, text, 0o644)
    must("boot-failed", "systemctl", "daemon-reload")
    must("boot-failed", "systemctl", "start", "--no-block", os.path.basename(KERNEL_UNIT))
    report = {}
    while not report:
        if time.monotonic() - began > WAIT:
            raise Failure("kernel-profile-missing", "noded did not start in the machine.")
        time.sleep(0.2)
        report = json.loads(read(REPORT) or "{}")
    problems = [report.get("fault")] + [each.get("message") for each in report["profiles"].values()]
    problem = "; ".join(each for each in problems if each)
    if problem:
        raise Failure("kernel-profile-missing", "The kernel of the machine is not as the template wants it: " + problem)
    say("cde: the kernel is as the template wants it")


def read(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def find_disk(disk):
    """The disk with this serial number; virtio cuts it after 20 characters."""
    wanted = disk["serial"]
    for name in sorted(os.listdir("/sys/block")):
        for attribute in ("serial", "device/serial"):
            serial = read("/sys/block/%s/%s" % (name, attribute)).replace("-", "")
            if len(serial) > 8 and wanted[:20] == serial[:20]:
                return "/dev/" + name
    for path in disk["paths"]:
        if os.path.exists(path):
            return os.path.realpath(path)
    return None


def mount_home(plan):
    began = time.monotonic()
    device = find_disk(plan["disk"])
    if not device:
        say("cde: waiting for the disk of the home")
    while not device:
        if time.monotonic() - began > WAIT:
            raise Failure("home-not-attached", "The disk of the home did not appear in the machine.")
        time.sleep(0.5)
        device = find_disk(plan["disk"])
    _, kind = run("blkid", "-p", "-o", "value", "-s", "TYPE", device)
    if not kind:
        with open(device, "rb") as disk:
            empty = not any(disk.read(1 << 20))
        if not plan["mayFormat"] or not empty:
            raise Failure("home-lost", "The disk of the home has no file system, although it was used before.")
        must("home-not-usable", "mkfs.ext4", "-q", "-m", "0", "-L", "cde-home", device)
        kind = "ext4"
        say("cde: the home was formatted")
    os.makedirs(plan["home"], exist_ok=True)
    if not os.path.ismount(plan["home"]):
        must("home-not-usable", "mount", device, plan["home"])
    grow = {"ext4": ["resize2fs", device], "xfs": ["xfs_growfs", plan["home"]]}.get(kind)
    if grow:
        status, output = run(*grow)
        if status != 0:
            say("cde: the home was not enlarged: " + output)


def write(path, text, mode):
    if os.path.lexists(path):
        os.unlink(path)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as out:
        out.write(text)


def main():
    os.umask(0o022)
    with open(sys.argv[1]) as file:
        plan = latest(json.load(file))
    os.unlink(sys.argv[1])
    server = Server(plan)
    reply = json.load(server.ask("/api/v1/agent/boot", {"build": plan["build"], "secret": plan["secret"]}))
    server.token = reply["token"]
    say("cde: the server was reached")
    install(server, reply["version"])
    settle_kernel(plan)
    mount_home(plan)
    write("/.cde-token", reply["token"], 0o400)
    write(UNIT, plan["unit"], 0o644)
    os.makedirs("/var/lib/cde", exist_ok=True)
    write("/var/lib/cde/booted", "", 0o600)
    must("agent-died", "systemctl", "daemon-reload")
    must("agent-died", "systemctl", "start", "--no-block", "cde-agent.service")


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        known = isinstance(error, Failure)
        code = error.code if known else "boot-failed"
        text = str(error) if known else "The agent could not be started: %r." % error
        say(json.dumps({"code": code, "message": text}, separators=(",", ":")))
        run("systemctl", "poweroff", "--no-block")
        sys.exit(1)
