import type { Instance, RunInstancesRequest, Subnet, Volume } from '@aws-sdk/client-ec2';
import type { Ec2Section } from '@cde/api/template-file.ts';
import type { AgentLaunch, WorkspaceSpec } from '../provider.ts';
import { formatQuantity, parseQuantity } from '../quantity.ts';
import { bootSecret } from '../vm/boot-secret.ts';
import { agentUnit } from '../vm/unit.ts';
import { userData } from '../vm/user-data.ts';
import { clientToken, type Role, tagOf, tags, toTags } from './names.ts';
import type { Resolved } from './surroundings.ts';

/** Where the home is attached. On instances with NVMe it is found by its serial number, which is the volume's id. */
export const homeDevice = '/dev/sdh';
const gibibyte = 2 ** 30;

export const homeDirectory = (owner: string) => `/home/${owner}`;

export const canBeRoot = ({ user, allowPrivilegeEscalation }: Ec2Section) =>
  allowPrivilegeEscalation || Number(user) === 0;

const maxProcesses = ({ processes }: Ec2Section) => (processes === undefined ? 8192 : Number(processes));

/** Whole GiB, which EBS sizes are in. */
export const gibibytes = (quantity: string | number): number =>
  Math.max(1, Math.ceil(parseQuantity(quantity)! / gibibyte));
export const sizeOf = ({ Size = 0 }: Volume): string => formatQuantity(Size * gibibyte);

/** What a kept instance was made from: with another text it is replaced. */
export const planOf = (section: Ec2Section): string => {
  const { onStop: _, snapshots: _s, env: _e, processes: _p, user: _u, ...plan } = section;
  return clientToken(JSON.stringify(plan)).slice(0, 16);
};

export interface InstancePlan {
  installation: string;
  spec: WorkspaceSpec;
  section: Ec2Section;
  launch: AgentLaunch;
  home: Volume;
  image: Resolved;
  subnet: Subnet;
  securityGroups: string[];
  certificateAuthorities: string | null;
  graceSeconds: number;
}

/** Tags of everything of a workspace. */
export function workspaceTags(
  { installation, spec }: Pick<InstancePlan, 'installation' | 'spec'>,
  role: Role,
): Record<string, string> {
  const called = `${spec.owner}/${spec.name}`;
  return {
    ...(spec.template.ec2?.tags as Record<string, string> | undefined),
    Name: role === 'instance' ? called : `${called} ${role}`,
    [tags.installation]: installation,
    [tags.role]: role,
    [tags.workspace]: spec.workspaceId,
    [tags.owner]: spec.owner,
    [tags.name]: spec.name,
  };
}

/** What the machine does on its next boot. It contains no token. */
export function bootData({
  spec,
  section,
  launch,
  home,
  certificateAuthorities,
  graceSeconds,
}: Pick<
  InstancePlan,
  'spec' | 'section' | 'launch' | 'home' | 'certificateAuthorities' | 'graceSeconds'
>): Buffer {
  const directory = homeDirectory(spec.owner);
  return userData({
    build: launch.buildId,
    secret: bootSecret(launch.token),
    serverUrl: launch.serverUrl,
    certificateAuthorities,
    metadata: true,
    // Instances on Xen have no serial numbers, and other names of devices.
    disk: { serial: home.VolumeId!.replace('-', ''), paths: ['/dev/xvdh'] },
    home: directory,
    mayFormat: tagOf(home, tags.used) === undefined,
    unit: agentUnit({
      enter: {
        owner: spec.owner,
        user: String(section.user),
        home: directory,
        hostname: spec.name,
        hasSudo: section.allowPrivilegeEscalation,
      },
      serverUrl: launch.serverUrl,
      hasGateway: false,
      canBeRoot: canBeRoot(section),
      processes: maxProcesses(section),
      graceSeconds,
      certificateAuthorities: certificateAuthorities ?? undefined,
      reportsToConsole: true,
    }),
  });
}

/** The instance of a workspace. `earlier`: those of the same build that have ended, so that a repeated call is a new one. */
export function workspaceInstance(plan: InstancePlan, earlier: readonly string[]): RunInstancesRequest {
  const { section, spec, launch, image, subnet, securityGroups } = plan;
  const own = {
    ...workspaceTags(plan, 'instance'),
    [tags.build]: launch.buildId,
    [tags.plan]: planOf(section),
  };
  const root = workspaceTags(plan, 'root');
  const { instanceProfile } = section;
  return {
    ImageId: image.id,
    InstanceType: section.instanceType as NonNullable<RunInstancesRequest['InstanceType']>,
    MinCount: 1,
    MaxCount: 1,
    ClientToken: clientToken(
      ...[plan.installation, spec.workspaceId, launch.buildId, plan.home.VolumeId!],
      ...[...earlier].sort(),
    ),
    UserData: bootData(plan).toString('base64'),
    // A container inside is one hop further away.
    MetadataOptions: { HttpTokens: 'required', HttpPutResponseHopLimit: 1, HttpEndpoint: 'enabled' },
    // Its reason stays visible, and only the server removes it. Spot instances can only be terminated.
    ...(!section.spot && { InstanceInitiatedShutdownBehavior: 'stop' as const }),
    ...(section.spot && {
      InstanceMarketOptions: {
        MarketType: 'spot' as const,
        SpotOptions: {
          SpotInstanceType: 'one-time' as const,
          InstanceInterruptionBehavior: 'terminate' as const,
        },
      },
    }),
    ...(instanceProfile !== undefined && {
      IamInstanceProfile: instanceProfile.startsWith('arn:')
        ? { Arn: instanceProfile }
        : { Name: instanceProfile },
    }),
    NetworkInterfaces: [
      {
        DeviceIndex: 0,
        SubnetId: subnet.SubnetId!,
        Groups: securityGroups,
        DeleteOnTermination: true,
        ...(section.publicAddress !== undefined && { AssociatePublicIpAddress: section.publicAddress }),
      },
    ],
    BlockDeviceMappings: [
      {
        DeviceName: image.rootDevice,
        Ebs: {
          DeleteOnTermination: true,
          Encrypted: true,
          VolumeType: 'gp3',
          ...(section.kmsKey !== undefined && { KmsKeyId: section.kmsKey }),
          // EC2 refuses a disk that is smaller than the image.
          VolumeSize: Math.max(image.rootGibibytes, section.disk === undefined ? 0 : gibibytes(section.disk)),
        },
      },
    ],
    TagSpecifications: [
      { ResourceType: 'instance', Tags: toTags(own) },
      { ResourceType: 'volume', Tags: toTags(root) },
    ],
  };
}

/** What separates the workspace from others, and which limits hold. */
export function describeIsolation(section: Ec2Section, { Placement }: Instance): string {
  const rights = canBeRoot(section)
    ? 'its programs can become root inside'
    : `runs as user ${section.user}, without capabilities and with no-new-privileges`;
  const network =
    section.securityGroups.length === 0
      ? 'accepts no connections from the network'
      : 'its security groups say who can connect to it';
  const spot = section.spot ? ', spot' : '';
  return `Virtual machine on EC2 (${section.instanceType}${spot}, ${Placement?.AvailabilityZone}), ${network}; ${rights}. Limits: processes ${maxProcesses(section)}.`;
}
