import type { GceSection } from '@cde/api/template-cloud.ts';
import { gibibytes } from '../vm/boot-data.ts';
import type { LaunchPlan } from '../vm/cloud.ts';
import { type BootPlan, cloudConfig, startupScript } from '../vm/user-data.ts';
import { path } from './client.ts';
import { networkTag, objectName, toLabels } from './names.ts';
import type { Image } from './resources.ts';

/** Where the home is attached. Google's images and systemd name the disk by it. */
export const homeDevice = 'cde-home';
export const homePaths = [
  `/dev/disk/by-id/google-${homeDevice}`,
  `/dev/disk/by-id/scsi-0Google_PersistentDisk_${homeDevice}`,
];

/** Metadata of the machine. It contains no token. Google's images run the script, and those with cloud-init read the other. */
export const bootMetadata = (boot: BootPlan): { key: string; value: string }[] => [
  { key: 'startup-script', value: startupScript(boot) },
  { key: 'user-data', value: cloudConfig(boot) },
  // Keys of the project would make users of the machine.
  { key: 'block-project-ssh-keys', value: 'TRUE' },
  { key: 'serial-port-enable', value: 'FALSE' },
];

export const machineName = (installation: string, { spec, launch, home, earlier }: LaunchPlan): string =>
  objectName(spec, '', ...[installation, spec.workspaceId, launch.buildId, home.id], ...[...earlier].sort());

/** The machine of a workspace. The home is attached once it runs: a zone without capacity leaves it untouched. */
export function workspaceInstance(
  plan: LaunchPlan,
  {
    installation,
    section,
    image,
    network,
  }: {
    installation: string;
    section: GceSection;
    image: Image;
    network: { network: string } | { subnetwork: string };
  },
) {
  const { spec, home, boot, labels } = plan;
  const { zone } = home;
  const { serviceAccount, kmsKey } = section;
  const own = (role: typeof labels.role) => ({
    ...(section.labels as Record<string, string>),
    ...toLabels({ ...labels, role }),
  });
  return {
    name: machineName(installation, plan),
    description: `Workspace ${spec.owner}/${spec.name} of cde`,
    machineType: path`zones/${zone}/machineTypes/${section.machineType}`,
    labels: own('instance'),
    tags: { items: section.networkTags.length > 0 ? section.networkTags : [networkTag(installation)] },
    metadata: { items: bootMetadata(boot) },
    disks: [
      {
        boot: true,
        autoDelete: true,
        initializeParams: {
          sourceImage: image.selfLink,
          // Compute Engine refuses a disk that is smaller than the image.
          diskSizeGb: String(
            Math.max(Number(image.diskSizeGb), section.disk === undefined ? 0 : gibibytes(section.disk)),
          ),
          diskType: path`zones/${zone}/diskTypes/${section.diskType}`,
          labels: own('root'),
        },
        ...(kmsKey !== undefined && { diskEncryptionKey: { kmsKeyName: kmsKey } }),
      },
    ],
    networkInterfaces: [
      {
        ...network,
        stackType: 'IPV4_ONLY',
        accessConfigs: section.publicAddress ? [{ type: 'ONE_TO_ONE_NAT', name: 'External NAT' }] : [],
      },
    ],
    scheduling: {
      // A machine that ends is replaced by the server: its boot secret is of no use for a second boot.
      automaticRestart: false,
      ...(section.spot && {
        provisioningModel: 'SPOT',
        // Its reason stays visible, and only the server removes it.
        instanceTerminationAction: 'STOP',
        onHostMaintenance: 'TERMINATE',
      }),
    },
    serviceAccounts:
      serviceAccount === undefined
        ? []
        : [{ email: serviceAccount, scopes: ['https://www.googleapis.com/auth/cloud-platform'] }],
    ...(section.shielded && {
      shieldedInstanceConfig: { enableSecureBoot: true, enableVtpm: true, enableIntegrityMonitoring: true },
    }),
    canIpForward: false,
    deletionProtection: false,
  };
}
