import type { Context } from '../command/context.ts';
import { usage } from '../failure/failure.ts';
import { type PodSecurityLevel, podSecurityLevels, roleObjects } from './role-objects.ts';

interface Input {
  namespace: string | undefined;
  serviceAccount: string | undefined;
  podSecurity: string | undefined;
  copySecret: string[];
}

const dnsName = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

/** Prints the objects that a server needs on a cluster without the chart, as JSON for `kubectl apply`. */
export async function role(context: Context, input: Input): Promise<number | undefined> {
  const { namespace = 'cde-system', serviceAccount = 'cde', podSecurity = 'baseline', copySecret } = input;
  for (const [option, value] of Object.entries({ namespace, 'service-account': serviceAccount }))
    if (!dnsName.test(value))
      throw usage(
        `--${option} ${value} is not a name in Kubernetes.`,
        'Use lower-case letters, digits and dashes.',
      );
  if (!podSecurityLevels.includes(podSecurity as PodSecurityLevel))
    throw usage(
      `--pod-security ${podSecurity} is not a level.`,
      `Write one of ${podSecurityLevels.join(', ')}.`,
    );
  for (const each of copySecret)
    if (!/^[a-z0-9][-a-z0-9]*\/[a-z0-9][-a-z0-9.]*$/.test(each))
      throw usage(
        `--copy-secret ${each} is not NAMESPACE/NAME.`,
        'For example --copy-secret registries/pull',
      );
  const items = roleObjects({
    namespace,
    serviceAccount,
    podSecurity: podSecurity as PodSecurityLevel,
    copySecrets: copySecret,
  });
  context.out.print(JSON.stringify({ apiVersion: 'v1', kind: 'List', items }, null, 2));
  return undefined;
}
