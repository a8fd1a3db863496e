import type { Provider } from '../provider.ts';
import type { CloudKind } from '../vm/cloud.ts';
import { type CloudProviderOptions, makeCloudProvider } from '../vm/provider.ts';
import { type GceAddress, GceError, isBusy, isThrottled, isUnreachable, messageOf } from './client.ts';
import { connectGce } from './cloud.ts';
import { noCapacityCode, refusal } from './refusal.ts';
import { gceSectionOf } from './section.ts';

export interface GceProviderOptions extends CloudProviderOptions {
  address: GceAddress;
}

const kindAt = ({ project, region }: GceAddress): CloudKind => ({
  name: 'gce',
  title: 'Google Compute',
  docs: 'docs/gce-provider.md',
  place: `gce ${project}/${region}`,
  codes: { noCapacity: noCapacityCode, refused: 'gcp-refused' },
  // cloud-init and Google's agent read it on each boot.
  remembersUserData: false,
  sectionOf: gceSectionOf,
  passing(error) {
    if (isThrottled(error))
      return 'Google limits how many requests this project makes: the next attempt follows.';
    if (isBusy(error)) return `Something else changes this on Google Compute: ${messageOf(error)}.`;
    if (isUnreachable(error)) return `Google Compute does not answer: ${messageOf(error)}.`;
    return null;
  },
  isRefusal: (error) => error instanceof GceError,
  refusal,
});

/** Workspaces as virtual machines on Google Compute Engine. */
export const makeGceProvider = ({ address, ...options }: GceProviderOptions): Provider =>
  makeCloudProvider(kindAt(address), () => connectGce(address, options.installation), options);
