import type { Context } from '../command/context.ts';
import { kubeCredentials } from './credentials.ts';

/** kubectl's exec plugin: prints an ExecCredential, and nothing else on stdout. */
export async function kubeToken(context: Context, input: { workspace: string }): Promise<number | undefined> {
  const { token, expiresAt } = await kubeCredentials(context, input.workspace);
  process.stdout.write(
    `${JSON.stringify({
      apiVersion: 'client.authentication.k8s.io/v1',
      kind: 'ExecCredential',
      status: { token, expirationTimestamp: expiresAt },
    })}\n`,
  );
  return undefined;
}
