import { z } from 'zod';
import { boundedRecord, maxInteger } from './names.ts';
import { Amount, Env } from './template-values.ts';

/** Larger numbers are written as a text. */
const maxSysctl = 2 ** 52;
const SysctlValue = z.union([z.string().min(1).max(200), z.number().int().min(-maxSysctl).max(maxSysctl)]);

/** Settings of the kernel that a virtual machine has to itself. noded applies them; docs/kernel-profiles.md. */
export const KernelSection = z.strictObject({
  sysctls: boundedRecord(
    z
      .string()
      .max(200)
      .regex(
        /^([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+|net\.ipv[46]\.(conf|neigh)\.\*\.[A-Za-z0-9_-]+)$/,
        'write it with dots: fs.aio-max-nr',
      ),
    z.union([SysctlValue, z.strictObject({ atLeast: SysctlValue })]),
    100,
  )
    .default({})
    .describe('An exact value, or `{ atLeast: NUMBER }`'),
  transparentHugePages: z
    .strictObject({
      enabled: z.enum(['always', 'madvise', 'never']).optional(),
      defrag: z.enum(['always', 'defer', 'defer+madvise', 'madvise', 'never']).optional(),
    })
    .optional(),
  modules: z
    .array(
      z
        .string()
        .max(64)
        .regex(/^[A-Za-z0-9_-]+$/, 'write the name of a kernel module: br_netfilter'),
    )
    .max(64)
    .default([])
    .describe('Kernel modules to load'),
});
export type KernelSection = z.infer<typeof KernelSection>;

const UserId = z
  .union([z.string().max(400), z.number().int().min(0).max(maxInteger)])
  .default(1000)
  .describe('The uid of the developer');
const Snapshots = z
  .strictObject({ keep: z.number().int().min(1).max(100) })
  .optional()
  .describe('A snapshot of the home after each stop');
const Processes = Amount.optional().describe('The limit of processes and threads; by default 8192');

const AwsName = z.string().max(128);

/** Settings of the `ec2` provider. Strings can contain expressions. */
export const Ec2Section = z.strictObject({
  image: z.string().max(400).describe('An AMI: its id, or a pattern of its name, whose newest match is used'),
  imageOwner: AwsName.optional().describe(
    'Whose AMIs a pattern matches: an account, or amazon; by default your own',
  ),
  instanceType: z.string().max(400),
  user: UserId,
  zone: z.string().max(400).optional().describe('The availability zone; a home elsewhere is moved there'),
  subnets: z
    .array(AwsName)
    .max(20)
    .default([])
    .describe('By default those of the default VPC. Homes are created in one of their zones'),
  securityGroups: z
    .array(AwsName)
    .max(16)
    .default([])
    .describe('By default one that permits no incoming connections'),
  publicAddress: z.boolean().optional().describe('By default as the subnet says'),
  instanceProfile: AwsName.optional().describe('The role that programs of the workspace have on AWS'),
  disk: Amount.optional().describe('The size of the root disk'),
  volumeType: z.enum(['gp3', 'gp2', 'io2', 'io1', 'st1', 'sc1']).default('gp3').describe('Of the home'),
  kmsKey: z.string().max(400).optional().describe('Encrypts the volumes; by default the key of the account'),
  spot: z.boolean().default(false).describe('Cheaper, and AWS can reclaim the instance at any time'),
  onStop: z
    .enum(['terminate', 'keep'])
    .default('terminate')
    .describe('`keep`: the next start boots the same instance with its root disk'),
  snapshots: Snapshots,
  processes: Processes,
  allowPrivilegeEscalation: z
    .boolean()
    .default(false)
    .describe('Lets the developer become root inside the instance with sudo'),
  tags: boundedRecord(
    z
      .string()
      .max(127)
      .regex(/^(?!aws:|cde:|Name$)/, 'use another key: aws:, cde: and Name are taken'),
    z.string().max(400),
    30,
  )
    .default({})
    .describe('Tags of instances and volumes, for the bill'),
  kernel: KernelSection.optional().describe("Settings of the machine's own kernel"),
  env: Env.default({}),
});
export type Ec2Section = z.infer<typeof Ec2Section>;

const GcpName = z.string().max(400);

/** Settings of the `gce` provider. Strings can contain expressions. */
export const GceSection = z.strictObject({
  image: z.string().max(400).describe('An image, or a family of images, whose newest one is used'),
  imageProject: GcpName.optional().describe('The project that the image belongs to; by default your own'),
  machineType: z.string().max(400),
  user: UserId,
  zones: z
    .array(z.string().max(400))
    .max(20)
    .default([])
    .describe('By default all zones of the region; a home elsewhere is moved to the first one'),
  network: GcpName.default('default').describe('The VPC network'),
  subnetwork: GcpName.optional().describe('Required in networks without automatic subnetworks'),
  networkTags: z
    .array(z.string().max(63))
    .max(16)
    .default([])
    .describe('By default one whose firewall rule permits no incoming connections'),
  publicAddress: z.boolean().default(false).describe('Without it, the network needs Cloud NAT'),
  serviceAccount: GcpName.optional().describe('What programs of the workspace are on Google Cloud'),
  disk: Amount.optional().describe('The size of the boot disk'),
  diskType: GcpName.default('pd-balanced').describe('Of the home and the boot disk'),
  kmsKey: GcpName.optional().describe('Encrypts the disks; by default a key of Google'),
  shielded: z
    .boolean()
    .default(true)
    .describe('Secure Boot, a virtual TPM and integrity monitoring, which the image has to support'),
  spot: z.boolean().default(false).describe('Cheaper, and Google can reclaim the machine at any time'),
  onStop: z
    .enum(['terminate', 'keep'])
    .default('terminate')
    .describe('`keep`: the next start boots the same machine with its boot disk'),
  snapshots: Snapshots,
  processes: Processes,
  allowPrivilegeEscalation: z
    .boolean()
    .default(false)
    .describe('Lets the developer become root inside the machine with sudo'),
  labels: boundedRecord(
    z
      .string()
      .max(63)
      .regex(/^(?!cde-)[a-z][a-z0-9_-]*$/, 'a lower-case key that does not start with cde-'),
    z.string().max(400),
    40,
  )
    .default({})
    .describe('Labels of machines and disks, for the bill'),
  kernel: KernelSection.optional().describe("Settings of the machine's own kernel"),
  env: Env.default({}),
});
export type GceSection = z.infer<typeof GceSection>;
