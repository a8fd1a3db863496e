import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

/** What a virtual machine does on its next boot: boot.py reads it as JSON. */
export interface BootPlan {
  build: string;
  /** Exchanged for the agent's token; see boot-secret.ts. */
  secret: string;
  /** Comma separated, best first. */
  serverUrl: string;
  certificateAuthorities: string | null;
  /** Whether user data can be read from a metadata service, as on EC2. */
  metadata: boolean;
  /** The disk of the home: its serial number without dashes, and paths where no number is to be seen. */
  disk: { serial: string; paths: string[] };
  home: string;
  /** False if there must be a file system on the disk. */
  mayFormat: boolean;
  /** The text of the agent's unit. */
  unit: string;
  /** The text of noded's file of profiles, and of its unit; absent if the template wants nothing of the kernel. */
  kernel?: { profiles: string; unit: string } | undefined;
}

/** Above it, user data is compressed, which cloud-init recognizes. EC2 takes 16 KiB. */
const maxPlainBytes = 15_000;

const program = readFileSync(join(import.meta.dirname, 'boot.py'), 'utf8');

/** Runs within cloud-init, which it must not delay: so it leaves the work to a unit. */
const installer = `
import os, subprocess, sys
os.makedirs("/run/cde", 0o700, exist_ok=True)
os.makedirs("/run/systemd/system", exist_ok=True)
unit = """[Unit]
Description=cde boot
DefaultDependencies=no
Before=shutdown.target
Conflicts=shutdown.target
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/usr/bin/env python3 /run/cde/boot.py /run/cde/plan.json
"""
for path, text in (("/run/cde/boot.py", sys.argv[1]), ("/run/cde/plan.json", sys.argv[2]), ("/run/systemd/system/cde-boot.service", unit)):
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
subprocess.call(["systemctl", "daemon-reload"])
subprocess.call(["systemctl", "start", "--no-block", "cde-boot.service"])
`;

/**
 * What cloud-init does in a machine. It has no user of its own, because the developer gets the number that such a user would
 * have. `bootcmd` runs on every boot.
 */
export function cloudConfig(plan: BootPlan): string {
  const config = {
    bootcmd: [['python3', '-c', installer.trim(), program, JSON.stringify(plan)]],
    users: [],
    preserve_hostname: true,
  };
  // JSON is YAML.
  return `#cloud-config\n${JSON.stringify(config)}\n`;
}

/** The user data of a machine, for cloud-init. */
export function userData(plan: BootPlan): Buffer {
  const text = Buffer.from(cloudConfig(plan));
  return text.length > maxPlainBytes ? gzipSync(text, { level: 9 }) : text;
}

/** The same as a program, for images without cloud-init. An image that has both runs it later than cloud-init. */
export const startupScript = (plan: BootPlan): string => `#!/usr/bin/env python3
import os, sys
if os.path.exists("/run/cde/boot.py"):
    sys.exit()
# Strings of JSON are strings of Python.
sys.argv[1:] = ${JSON.stringify([program, JSON.stringify(plan)])}
${installer.trim()}
`;
