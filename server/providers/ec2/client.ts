import type { EC2 } from '@aws-sdk/client-ec2';

export interface Ec2Address {
  region: string;
  endpoint?: string | undefined;
}

export type Ec2Client = EC2;

/** Loads the SDK, which takes a second and 100 MB, so only servers with workspaces on EC2 do. */
export async function makeEc2Client({ region, endpoint }: Ec2Address): Promise<Ec2Client> {
  const { EC2 } = await import('@aws-sdk/client-ec2');
  return new EC2({
    region,
    ...(endpoint !== undefined && { endpoint }),
    // More waiting is better done between steps, which say what they wait for.
    maxAttempts: 3,
  });
}

/** EC2's code of a refusal, such as `InvalidVolume.NotFound`; undefined if it gave none. */
export function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('$metadata' in error)) return undefined;
  return '$fault' in error ? error.name : undefined;
}

export const messageOf = (error: unknown): string =>
  (error as Error).message?.trim() || (error as { code?: string }).code || String(error);

const throttled = new Set([
  'RequestLimitExceeded',
  'Throttling',
  'ThrottlingException',
  'ThrottledException',
  'RequestThrottled',
  'TooManyRequestsException',
  'EC2ThrottledException',
  'ResourceCountExceeded',
]);

/** Whether EC2 limits the rate of the account's calls. */
export const isThrottled = (error: unknown): boolean => throttled.has(codeOf(error) ?? '');

const failing = new Set(['InternalError', 'InternalFailure', 'ServiceUnavailable', 'Unavailable']);
const networkErrors =
  /^(ECONN\w+|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOST\w+|ENET\w+|ERR_TLS_\w+|CERT_\w+|DEPTH_ZERO\w+|SELF_SIGNED\w+|UNABLE_TO_\w+)$/;

/** Whether EC2 gave no answer, so that nothing is known. */
export function isUnreachable(error: unknown): boolean {
  const { code, name, $metadata } = error as {
    code?: string;
    name?: string;
    $metadata?: { httpStatusCode?: number };
  };
  const status = $metadata?.httpStatusCode ?? 0;
  return (
    networkErrors.test(code ?? '') ||
    name === 'TimeoutError' ||
    failing.has(codeOf(error) ?? '') ||
    (status >= 500 && !isThrottled(error))
  );
}

/** Whether EC2 refused a call because of what it is about. */
export const isRefusal = (error: unknown): boolean => codeOf(error) !== undefined;

/** Whether credentials could not be found, or have expired. */
export const isWithoutCredentials = (error: unknown): boolean =>
  /^(CredentialsProviderError|TokenProviderError|ExpiredToken\w*|RequestExpired)$/.test(
    (error as Error).name ?? '',
  );

/** The result, or null if what is asked for does not exist. */
export async function orNull<T>(call: Promise<T>): Promise<T | null> {
  try {
    return await call;
  } catch (error) {
    if (isNotFound(error)) return null;
    throw error;
  }
}

export const isNotFound = (error: unknown): boolean => /\.(NotFound|Malformed)$/.test(codeOf(error) ?? '');

/** Waits for a call; refusals with one of these codes are as good. True if it was not refused. */
export async function accept(call: Promise<unknown>, ...codes: (string | RegExp)[]): Promise<boolean> {
  try {
    await call;
    return true;
  } catch (error) {
    const code = codeOf(error);
    const isFine =
      code !== undefined &&
      codes.some((each) => (typeof each === 'string' ? each === code : each.test(code)));
    if (!isFine) throw error;
    return false;
  }
}
