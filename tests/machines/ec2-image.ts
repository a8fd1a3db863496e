// The disk of an AMI that the tests start instances from: Debian with its own kernel, systemd and cloud-init, by
// debootstrap. Built once into the cache. Its guests boot without a boot loader and an initramfs, which take long
// without hardware virtualisation: Debian's cloud kernel has NVMe and ext4 built in.
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { debootstrap } from '../cluster/images.ts';
import { buildDir, shortHash } from '../cluster/layout.ts';
import { logProgress, run, runAsync } from '../cluster/machine.ts';
import { removeLeftovers } from '../cluster/tool.ts';

/** The names that the images are registered under. */
export const amiNames = {
  /** Debian 12 with sudo and the user `dev` (1000). */
  debian: 'cde-debian-12',
  /** The same with newer dotfiles in /etc/skel: another .bashrc, and a .vimrc that was not there. */
  debianNewer: 'cde-debian-12b',
  /** The first one, with cloud-init itself: its user data runs half a minute later. */
  cloudInit: 'cde-debian-12-cloud-init',
  /** Its kernel does not find its root. */
  unbootable: 'cde-unbootable',
} as const;
export type AmiName = (typeof amiNames)[keyof typeof amiNames];

export interface Ami {
  /** Of its root, raw. */
  disk: string;
  /** Further parts of the kernel's command line. */
  kernelOptions: string[];
}

export interface AmiFiles {
  kernel: string;
  amis: Record<AmiName, Ami>;
}

/** What the kernel's `root=` says: the signature of the partition table, and the partition. */
export const rootPartition = '0cde0001-01';

const packages = [
  ...['ca-certificates', 'procps', 'sudo', 'less', 'git', 'iproute2', 'e2fsprogs', 'kmod'],
  ...[
    'systemd-sysv',
    'acpid',
    'udev',
    'cloud-init',
    'python3-cffi-backend',
    'qemu-guest-agent',
    'linux-image-cloud-amd64',
  ],
].join(',');

/** What has no purpose in a guest that lives for a minute: under emulation, each unit takes a good part of a second. */
const masked = [
  ...['getty.target', 'timers.target', 'dev-hugepages.mount', 'dev-mqueue.mount', 'sys-kernel-debug.mount'],
  ...['sys-kernel-tracing.mount', 'sys-kernel-config.mount', 'sys-fs-fuse-connections.mount'],
  ...['proc-sys-fs-binfmt_misc.automount', 'systemd-binfmt.service', 'systemd-random-seed.service'],
  ...['systemd-sysusers.service', 'systemd-update-utmp.service', 'systemd-update-utmp-runlevel.service'],
  ...['systemd-user-sessions.service', 'systemd-journal-flush.service', 'systemd-timesyncd.service'],
  ...['systemd-networkd.service', 'systemd-networkd.socket', 'systemd-network-generator.service'],
  ...['systemd-networkd-wait-online.service', 'systemd-logind.service', 'dbus.service', 'dbus.socket'],
  ...['systemd-pstore.service'],
  ...['systemd-modules-load.service', 'kmod-static-nodes.service', 'cloud-init-hotplugd.socket'],
  ...[
    'systemd-ask-password-console.path',
    'systemd-ask-password-wall.path',
    'networking.service',
    'e2scrub_reap.service',
  ],
  ...['dm_mod', 'fuse', 'loop', 'configfs', 'drm', 'efi_pstore'].map((name) => `modprobe@${name}.service`),
];
/** Programs that systemd runs before anything else, for what these disks do not have. */
const maskedGenerators = [
  ...[
    'bless-boot',
    'cryptsetup',
    'debug',
    'getty',
    'gpt-auto',
    'hibernate-resume',
    'integritysetup',
    'rc-local',
  ],
  ...['run', 'system-update', 'sysv', 'veritysetup'],
].map((name) => `systemd-${name}-generator`);

/** The modules that user data of ours may need, because each takes its second under emulation. */
const cloudConfig = {
  datasource_list: ['NoCloud', 'None'],
  network: { config: 'disabled' },
  disable_root: true,
  preserve_hostname: false,
  cloud_init_modules: [
    'bootcmd',
    'write-files',
    'growpart',
    'resizefs',
    'disk_setup',
    'mounts',
    'set_hostname',
  ],
  cloud_config_modules: ['runcmd'],
  cloud_final_modules: ['scripts-per-boot', 'scripts-per-instance', 'scripts-user'],
  system_info: { distro: 'debian', paths: { cloud_dir: '/var/lib/cloud/' } },
  output: { all: '| tee -a /var/log/cloud-init-output.log' },
};

/** A machine that does much else starts units slowly, and none must fail for that. */
const systemSettings = '[Manager]\nDefaultTimeoutStartSec=infinity\nDefaultTimeoutStopSec=30\n';

/** Its addresses never change, and systemd's own daemon takes long. */
const networkUnit = `[Unit]
Description=Network
DefaultDependencies=no
Before=network.target network-online.target shutdown.target
Wants=network.target network-online.target
Conflicts=shutdown.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'modprobe virtio_net; until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done; ip link set lo up; ip address add 169.254.169.254/32 dev lo; ip address add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2'
[Install]
WantedBy=sysinit.target
`;

/** The power button, by which EC2 stops an instance. Instead of systemd-logind, which needs D-Bus. */
const powerButton = 'event=button/power\naction=/usr/bin/systemctl poweroff\n';

/**
 * Stands in for cloud-init, which takes 40 s of CPU time per boot under emulation: reads user data from the same NoCloud
 * disk, and does the part of it that user data of ours may need. A guest with `cde.cloud-init` on the kernel's command line
 * has the real one instead.
 */
const userDataUnit = `[Unit]
Description=User data
DefaultDependencies=no
After=local-fs.target systemd-tmpfiles-setup.service guest-network.service
Wants=guest-network.service
Conflicts=shutdown.target
Before=shutdown.target
ConditionKernelCommandLine=!cde.cloud-init
[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=infinity
StandardOutput=journal+console
ExecStart=/usr/bin/python3 -S -E /usr/local/sbin/user-data
[Install]
WantedBy=sysinit.target
`;

const userDataReader = `import base64, gzip, json, os, subprocess, sys, time
seed = "/run/seed"
os.makedirs(seed, exist_ok=True)
while True:
    disk = [name for name in os.listdir("/sys/block") if os.path.exists("/sys/block/%s/device/serial" % name)
            and open("/sys/block/%s/device/serial" % name).read().strip() == "seed"]
    if disk and os.path.exists("/dev/%sp1" % disk[0]):
        break
    time.sleep(0.1)
subprocess.check_call(["mount", "-t", "vfat", "-o", "ro", "/dev/%sp1" % disk[0], seed])
meta = dict(line.split(": ", 1) for line in open(seed + "/meta-data").read().splitlines())
data = open(seed + "/user-data", "rb").read()
subprocess.check_call(["umount", seed])
if data[:2] == b"\\x1f\\x8b":
    data = gzip.decompress(data)
state = "/var/lib/cloud/instances/" + meta["instance-id"]
first = not os.path.exists(state)
os.makedirs(state, exist_ok=True)
def call(command):
    subprocess.call(["sh", "-c", command] if isinstance(command, str) else command)
if data.startswith(b"#cloud-config"):
    config = json.loads(data.split(b"\\n", 1)[1])
    for command in config.get("bootcmd", []):
        call(command)
    for file in config.get("write_files", []) if first else []:
        content = file["content"]
        content = base64.b64decode(content) if file.get("encoding") in ("b64", "base64") else content.encode()
        os.makedirs(os.path.dirname(file["path"]), exist_ok=True)
        with open(file["path"], "wb") as out:
            out.write(content)
        os.chmod(file["path"], int(file.get("permissions", "0644"), 8))
    for command in config.get("runcmd", []) if first else []:
        call(command)
elif data.startswith(b"#!") and first:
    open(state + "/script", "wb").write(data)
    os.chmod(state + "/script", 0o700)
    call([state + "/script"])
`;

/** The metadata service at its usual address: the tests' own, on a port of the host that the kernel's command line says. */
const metadataSocket = `[Unit]
DefaultDependencies=no
Before=shutdown.target
Conflicts=shutdown.target
[Socket]
ListenStream=169.254.169.254:80
FreeBind=yes
[Install]
WantedBy=sysinit.target
`;
// biome-ignore lint/suspicious/noTemplateCurlyInString: for systemd
const metadataPort = '${CDE_METADATA_PORT}';
const metadataService = `[Service]
PassEnvironment=CDE_METADATA_PORT
ExecStart=/lib/systemd/systemd-socket-proxyd 10.0.2.2:${metadataPort}
`;
const put = (folder: string, path: string, text: string, mode = 0o644) => {
  mkdirSync(join(folder, path, '..'), { recursive: true });
  writeFileSync(join(folder, path), text, { mode });
};

/** Raised by hand when the images change in another way than by what follows: names their folder in the cache. */
const recipeVersion = '1';
const recipe = [
  ...[
    recipeVersion,
    packages,
    masked,
    maskedGenerators,
    cloudConfig,
    networkUnit,
    powerButton,
    systemSettings,
  ],
  ...[userDataUnit, userDataReader, metadataSocket, metadataService],
];

const enabled = ['guest-network.service', 'acpid.service', 'metadata.socket', 'user-data.service'];

function configure(root: string): void {
  run('chroot', [root, 'useradd', '--create-home', '--uid', '1000', '--shell', '/bin/bash', 'dev']);
  put(root, 'etc/sudoers.d/dev', 'dev ALL=(ALL) NOPASSWD: ALL\n', 0o440);
  put(root, 'etc/fstab', `PARTUUID=${rootPartition} / ext4 defaults,noatime 0 0\n`);
  put(root, 'etc/machine-id', '');
  put(root, 'etc/resolv.conf', 'nameserver 10.0.2.3\n');
  put(root, 'etc/systemd/system/guest-network.service', networkUnit);
  put(root, 'etc/acpi/events/power', powerButton);
  put(root, 'etc/systemd/system/metadata.socket', metadataSocket);
  put(root, 'etc/systemd/system/metadata.service', metadataService);
  put(root, 'etc/systemd/system/user-data.service', userDataUnit);
  put(root, 'usr/local/sbin/user-data', userDataReader);
  for (const unit of ['cloud-init-local', 'cloud-init', 'cloud-config', 'cloud-final'])
    put(
      root,
      `etc/systemd/system/${unit}.service.d/test.conf`,
      '[Unit]\nConditionKernelCommandLine=cde.cloud-init\n',
    );
  put(root, 'etc/cloud/cloud.cfg', `${JSON.stringify(cloudConfig, null, 1)}\n`);
  rmSync(join(root, 'etc/cloud/cloud.cfg.d'), { recursive: true, force: true });
  // It looks for a data source before the drivers of the disks are loaded.
  rmSync(join(root, 'usr/lib/cloud-init/ds-identify'));
  put(root, 'etc/systemd/system.conf', systemSettings);
  put(root, 'etc/systemd/journald.conf', '[Journal]\nStorage=volatile\n');
  mkdirSync(join(root, 'etc/systemd/system-generators'), { recursive: true });
  for (const name of maskedGenerators)
    symlinkSync('/dev/null', join(root, 'etc/systemd/system-generators', name));
  put(root, 'etc/skel/.image-version', '12\n');
  put(root, 'etc/skel/.bashrc', 'export IMAGE_DOTFILES=12\n');
  run('chroot', [root, 'systemctl', '--quiet', 'enable', ...enabled]);
  run('chroot', [root, 'systemctl', '--quiet', 'mask', ...masked]);
  run('chroot', [root, 'systemctl', '--quiet', 'set-default', 'multi-user.target']);
}

const partitionStart = 2 ** 20;
/** Sparse, so that a guest's root has room. */
const diskBytes = 4 * 2 ** 30;

/** A raw disk with one partition that holds the folder. */
async function writeDisk(root: string, file: string): Promise<void> {
  const draft = `${file}.draft`;
  writeFileSync(draft, '');
  truncateSync(draft, diskBytes);
  const kilobytes = (diskBytes - partitionStart) / 1024;
  await runAsync('mke2fs', [
    ...['-q', '-t', 'ext4', '-L', 'cde-root', '-m', '0', '-E', `offset=${partitionStart},nodiscard`],
    ...['-d', root, draft, `${kilobytes}k`],
  ]);
  writeSync(openSync(draft, 'r+'), partitionTable(), 0, 512, 0);
  renameSync(draft, file);
}

function partitionTable(): Buffer {
  const sector = Buffer.alloc(512);
  sector.writeUInt32LE(Number.parseInt(rootPartition, 16), 440);
  const entry = 446;
  sector[entry + 4] = 0x83;
  sector.writeUInt32LE(partitionStart / 512, entry + 8);
  sector.writeUInt32LE((diskBytes - partitionStart) / 512, entry + 12);
  sector.writeUInt16LE(0xaa55, 510);
  return sector;
}

/** The disks by name, and the kernel of all; built if need be. */
export async function amiFiles(): Promise<AmiFiles> {
  const folder = join(buildDir, `ec2-${shortHash(JSON.stringify(recipe), process.arch)}`);
  const files: AmiFiles = {
    kernel: join(folder, 'vmlinuz'),
    amis: {
      [amiNames.debian]: { disk: join(folder, 'debian.img'), kernelOptions: ['rootwait'] },
      [amiNames.debianNewer]: { disk: join(folder, 'debian-newer.img'), kernelOptions: ['rootwait'] },
      [amiNames.cloudInit]: {
        disk: join(folder, 'debian.img'),
        kernelOptions: ['rootwait', 'cde.cloud-init'],
      },
      [amiNames.unbootable]: { disk: join(folder, 'empty.img'), kernelOptions: [] },
    },
  };
  if (existsSync(folder)) return files;
  removeLeftovers();
  const work = join(buildDir, `.ec2-images-${process.pid}`);
  const done = join(work, 'done');
  mkdirSync(done, { recursive: true });
  const began = Date.now();
  logProgress('Building the disk for EC2 instances (once)');
  try {
    const root = join(work, 'root');
    await debootstrap(root, packages);
    configure(root);
    const boot = join(root, 'boot');
    copyFileSync(
      join(boot, readdirSync(boot).find((name) => name.startsWith('vmlinuz'))!),
      join(done, 'vmlinuz'),
    );
    rmSync(boot, { recursive: true });
    mkdirSync(boot);
    await writeDisk(root, join(done, 'debian.img'));
    put(root, 'etc/skel/.image-version', '12b\n');
    put(root, 'etc/skel/.bashrc', 'export IMAGE_DOTFILES=12b\n');
    put(root, 'etc/skel/.vimrc', 'set number\n');
    await writeDisk(root, join(done, 'debian-newer.img'));
    const empty = join(done, 'empty.img');
    writeFileSync(empty, '');
    truncateSync(empty, 2 ** 20);
    try {
      renameSync(done, folder);
    } catch (error) {
      // Another process built it in the meantime.
      if (!existsSync(folder)) throw error;
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  logProgress(`Built the disk for EC2 instances in ${Math.round((Date.now() - began) / 1000)} s`);
  return files;
}
