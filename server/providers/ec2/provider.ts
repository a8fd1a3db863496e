import type { Provider } from '../provider.ts';
import type { CloudKind } from '../vm/cloud.ts';
import { type CloudProviderOptions, makeCloudProvider } from '../vm/provider.ts';
import {
  type Ec2Address,
  isRefusal,
  isThrottled,
  isUnreachable,
  isWithoutCredentials,
  messageOf,
} from './client.ts';
import { connectEc2 } from './cloud.ts';
import { noCapacityCode, refusal } from './refusal.ts';
import { ec2SectionOf } from './section.ts';

export interface Ec2ProviderOptions extends CloudProviderOptions {
  address: Ec2Address;
}

const kindAt = ({ region }: Ec2Address): CloudKind => ({
  name: 'ec2',
  title: 'EC2',
  docs: 'docs/ec2-provider.md',
  place: `ec2 ${region}`,
  codes: { noCapacity: noCapacityCode, refused: 'aws-refused' },
  // cloud-init does, as long as the instance is the same.
  remembersUserData: true,
  sectionOf: ec2SectionOf,
  passing(error) {
    if (isThrottled(error))
      return 'AWS limits how many requests this account makes: the next attempt follows.';
    if (isUnreachable(error)) return `EC2 does not answer: ${messageOf(error)}.`;
    return null;
  },
  isRefusal: (error) => isRefusal(error) || isWithoutCredentials(error),
  refusal,
});

/** Workspaces as virtual machines on Amazon EC2. */
export const makeEc2Provider = ({ address, ...options }: Ec2ProviderOptions): Provider =>
  makeCloudProvider(kindAt(address), () => connectEc2(address, options.installation), options);
