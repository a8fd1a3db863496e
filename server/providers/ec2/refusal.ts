import type { ProviderError } from '../provider.ts';
import { codeOf, isWithoutCredentials, messageOf } from './client.ts';

type Known = Omit<ProviderError, 'detail'>;

export const noCapacityCode = 'aws-no-capacity';

const notAuthorized: Known = {
  code: 'aws-not-authorized',
  message: 'AWS does not permit this server what it needs.',
  hint: 'Check the credentials of the server and their policy: docs/ec2-provider.md lists the actions.',
  fault: 'system',
};

const noCapacity =
  /^(InsufficientInstanceCapacity|InsufficientHostCapacity|InsufficientCapacity|SpotMaxPriceTooLow|InsufficientVolumeCapacity)$/;

const known: [pattern: RegExp, error: Known][] = [
  [
    /^(AuthFailure|UnauthorizedOperation|InvalidClientTokenId|SignatureDoesNotMatch|MissingAuthenticationToken|OptInRequired|AccessDenied\w*|UnrecognizedClientException|PendingVerification|Blocked)$/,
    notAuthorized,
  ],
  [
    noCapacity,
    {
      code: noCapacityCode,
      message: 'AWS has no free capacity for this instance type in this availability zone at the moment.',
      hint: 'Start the workspace again later, or choose another instance type or zone: the home is moved there.',
      fault: 'system',
    },
  ],
  [
    /LimitExceeded$|^(VolumeLimitExceeded|MaxIOPSLimitExceeded|InsufficientFreeAddressesInSubnet|MaxSpotInstanceCountExceeded)$/,
    {
      code: 'quota-exceeded',
      message: 'A quota of the AWS account leaves no room for this workspace.',
      hint: 'Stop another workspace, or ask an administrator to raise the quota in Service Quotas.',
      fault: 'system',
    },
  ],
  [
    /^InvalidAMIID|^(InvalidAMIName|UnavailableAMI)/,
    {
      code: 'image-not-found',
      message: 'There is no such AMI in this region, or the account may not use it.',
      hint: 'Check ec2.image and ec2.imageOwner in the template.',
      fault: 'user',
    },
  ],
  [
    /^(Unsupported|InvalidInstanceType|UnsupportedOperation|InstanceTypeNotSupported|InvalidInstanceAttributeValue)$/,
    {
      code: 'instance-type-not-supported',
      message: 'EC2 cannot run this instance type like this.',
      hint: 'Change ec2.instanceType or ec2.zone in the template.',
      fault: 'user',
    },
  ],
  [
    /^Invalid(Subnet|SubnetID|Group|GroupId|SecurityGroupID|IamInstanceProfile|ParameterValue|ParameterCombination|BlockDeviceMapping|Zone|Parameter|Key\w*|Kms\w*)\b|^(VPCIdNotSpecified|MissingParameter|InvalidIamInstanceProfileArn)/,
    {
      code: 'aws-setting-invalid',
      message: 'EC2 does not know what the template names, or refuses its value.',
      hint: "Correct the template's ec2 section.",
      fault: 'user',
    },
  ],
];

/** A refusal in words for the developer. */
export function refusal(error: unknown): ProviderError {
  const code = codeOf(error);
  const detail = code === undefined ? messageOf(error) : `${code}: ${messageOf(error)}`;
  if (isWithoutCredentials(error)) return { ...notAuthorized, detail };
  const found = known.find(([pattern]) => pattern.test(code ?? ''));
  return found
    ? { ...found[1], detail }
    : { code: 'aws-refused', message: 'EC2 refused a request.', detail, fault: 'system' };
}
