import type { RunInstancesRequest, Subnet } from '@aws-sdk/client-ec2';
import type { Ec2Section } from '@cde/api/template-cloud.ts';
import { gibibytes } from '../vm/boot-data.ts';
import type { LaunchPlan } from '../vm/cloud.ts';
import { digest, type Role } from '../vm/labels.ts';
import { userData } from '../vm/user-data.ts';
import { tagsFor, toTags } from './names.ts';
import type { Resolved } from './surroundings.ts';

/** Where the home is attached. On instances with NVMe it is found by its serial number, which is the volume's id. */
export const homeDevice = '/dev/sdh';

export interface Ec2Surroundings {
  installation: string;
  section: Ec2Section;
  image: Resolved;
  subnet: Subnet;
  securityGroups: string[];
}

/** The template's tags, which cannot replace those of cde. */
export const templateTags = ({ tags }: Ec2Section) => toTags(tags as Record<string, string>);

/** The instance of a workspace. The home is attached once it runs: a zone without capacity leaves it untouched. */
export function workspaceInstance(
  { spec, launch, home, boot, labels, earlier }: LaunchPlan,
  { installation, section, image, subnet, securityGroups }: Ec2Surroundings,
): RunInstancesRequest {
  const { instanceProfile } = section;
  const tagsAs = (role: Role) => [...templateTags(section), ...tagsFor({ ...labels, role })];
  return {
    ImageId: image.id,
    InstanceType: section.instanceType as NonNullable<RunInstancesRequest['InstanceType']>,
    MinCount: 1,
    MaxCount: 1,
    ClientToken: digest(...[installation, spec.workspaceId, launch.buildId, home.id], ...[...earlier].sort()),
    UserData: userData(boot).toString('base64'),
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
      { ResourceType: 'instance', Tags: tagsAs('instance') },
      { ResourceType: 'volume', Tags: tagsAs('root') },
    ],
  };
}
