import type { Image, Subnet } from '@aws-sdk/client-ec2';
import type { Ec2Section } from '@cde/api/template-cloud.ts';
import { ProviderFailure } from '../failure.ts';
import { makeCache } from '../vm/cache.ts';
import { accept, type Ec2Client } from './client.ts';
import { tags, toTags } from './names.ts';

export interface Resolved {
  id: string;
  rootDevice: string;
  rootGibibytes: number;
}

const defaultRootGibibytes = 8;

/** What the account has around a workspace: images, subnets, zones and the security group. */
export function makeSurroundings(client: Ec2Client, installation: string) {
  const cache = makeCache();

  async function findImage({ image, imageOwner }: Ec2Section): Promise<Resolved> {
    const isId = /^ami-[0-9a-f]+$/.test(image);
    const found =
      (
        await client.describeImages(
          isId
            ? { ImageIds: [image] }
            : {
                Owners: [imageOwner ?? 'self'],
                Filters: [
                  { Name: 'name', Values: [image] },
                  { Name: 'state', Values: ['available'] },
                ],
              },
        )
      ).Images ?? [];
    const newest = found.sort((a, b) => (b.CreationDate ?? '').localeCompare(a.CreationDate ?? ''))[0];
    if (!newest)
      throw new ProviderFailure({
        code: 'image-not-found',
        message: `There is no AMI ${image} in this region.`,
        hint: 'Check ec2.image and ec2.imageOwner in the template.',
        fault: 'user',
      });
    checkArchitecture(newest);
    const rootDevice = newest.RootDeviceName ?? '/dev/sda1';
    const root = newest.BlockDeviceMappings?.find(({ DeviceName }) => DeviceName === rootDevice);
    return {
      id: newest.ImageId!,
      rootDevice,
      rootGibibytes: root?.Ebs?.VolumeSize ?? defaultRootGibibytes,
    };
  }

  async function findSubnets({ subnets }: Ec2Section): Promise<Subnet[]> {
    const { Subnets = [] } = await client.describeSubnets(
      subnets.length > 0
        ? { SubnetIds: subnets }
        : { Filters: [{ Name: 'default-for-az', Values: ['true'] }] },
    );
    if (Subnets.length === 0)
      throw new ProviderFailure({
        code: 'aws-setting-invalid',
        message: 'The account has no default VPC in this region, and the template names no subnets.',
        hint: 'Set ec2.subnets in the template.',
        fault: 'user',
      });
    return Subnets.sort((a, b) => a.SubnetId!.localeCompare(b.SubnetId!));
  }

  /** The zones that have the instance type. */
  const zonesWith = (instanceType: string) =>
    cache.get(`type ${instanceType}`, async () => {
      const { InstanceTypeOfferings = [] } = await client.describeInstanceTypeOfferings({
        LocationType: 'availability-zone',
        Filters: [{ Name: 'instance-type', Values: [instanceType] }],
      });
      return InstanceTypeOfferings.map(({ Location }) => Location!);
    });

  async function ensureSecurityGroup(vpc: string): Promise<string> {
    const name = `cde-${installation}`;
    const find = async () =>
      (
        await client.describeSecurityGroups({
          Filters: [
            { Name: 'vpc-id', Values: [vpc] },
            { Name: 'group-name', Values: [name] },
          ],
        })
      ).SecurityGroups?.[0]?.GroupId;
    const found = await find();
    if (found) return found;
    const create = client.createSecurityGroup({
      GroupName: name,
      Description: 'Workspaces of cde: no incoming connections',
      VpcId: vpc,
      TagSpecifications: [
        {
          ResourceType: 'security-group',
          Tags: toTags({ [tags.installation]: installation, [tags.role]: 'network' }),
        },
      ],
    });
    await accept(create, 'InvalidGroup.Duplicate');
    return (await find()) ?? ensureSecurityGroup(vpc);
  }

  return {
    image: (section: Ec2Section) =>
      cache.get(`image ${section.imageOwner} ${section.image}`, () => findImage(section)),

    /** The subnets that the template permits, in zones that have its instance type. */
    async subnets(section: Ec2Section): Promise<Subnet[]> {
      const all = await cache.get(`subnets ${section.subnets.join()}`, () => findSubnets(section));
      const zones = await zonesWith(section.instanceType);
      const fitting = all.filter(
        ({ AvailabilityZone: zone }) =>
          zones.includes(zone!) && (section.zone === undefined || section.zone === zone),
      );
      if (fitting.length > 0) return fitting;
      throw new ProviderFailure(
        zones.length === 0
          ? {
              code: 'instance-type-not-supported',
              message: `This region has no instance type ${section.instanceType}.`,
              hint: 'Change ec2.instanceType in the template.',
              fault: 'user',
            }
          : {
              code: 'aws-setting-invalid',
              message: `No subnet of the template is in a zone that fits: ${section.zone ?? zones.join(', ')}.`,
              hint: 'Change ec2.zone, ec2.subnets or ec2.instanceType in the template.',
              fault: 'user',
            },
      );
    },

    securityGroups: async (section: Ec2Section, vpc: string): Promise<string[]> =>
      section.securityGroups.length > 0
        ? section.securityGroups
        : [await cache.get(`group ${vpc}`, () => ensureSecurityGroup(vpc))],

    /** Something that it named does not exist any longer. */
    forget: () => cache.clear(),
  };
}

export type Surroundings = ReturnType<typeof makeSurroundings>;

function checkArchitecture({ Architecture, ImageId }: Image): void {
  const own = { x64: 'x86_64', arm64: 'arm64' }[process.arch as string] ?? process.arch;
  if (Architecture === own || Architecture === undefined) return;
  throw new ProviderFailure({
    code: 'wrong-architecture',
    message: `The AMI ${ImageId} is for ${Architecture}, and this server's agent, which it has to run, for ${own}.`,
    hint: "Use an AMI and an instance type with this server's processor.",
    fault: 'user',
  });
}
