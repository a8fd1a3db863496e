import { parseQuantity } from '../../quantity.ts';
import type { Reason } from './reading.ts';
import { formatAmount } from './scheduling.ts';

/** The resources of quotas, in words. */
const counted: Record<string, string> = {
  cpu: 'CPU',
  'requests.cpu': 'requested CPU',
  'limits.cpu': 'CPU',
  memory: 'memory',
  'requests.memory': 'requested memory',
  'limits.memory': 'memory',
  'requests.storage': 'storage',
  'requests.ephemeral-storage': 'ephemeral storage',
  'limits.ephemeral-storage': 'ephemeral storage',
  pods: 'pods',
  'count/pods': 'pods',
  persistentvolumeclaims: 'volume claims',
};

const amounts = (text: string): Record<string, string> =>
  Object.fromEntries(text.split(',').map((pair) => pair.split('=')));
const amountOf = (text: string): number =>
  /^\d+m$/.test(text) ? Number(text.slice(0, -1)) / 1000 : (parseQuantity(text) ?? Number(text));

/**
 * Explains why an API server rejects an object. `what`: "pod web-0"; `message`: Kubernetes' own. Rejections that depend on what
 * else runs at the moment are not fatal.
 */
export function explainRejection(what: string, message: string): Reason {
  const detail = message;
  const quota = /exceeded quota: (\S+), requested: (\S+), used: (\S+), limited: ([^\s"]+)/.exec(message);
  if (quota) {
    const [, name, requested = '', used = '', limited = ''] = quota;
    const asked = amounts(requested);
    const taken = amounts(used);
    const most = amounts(limited);
    const lines = Object.keys(asked).map(
      (key) =>
        `${counted[key] ?? key}: ${formatAmount(key, asked[key]!)} requested, ${formatAmount(key, taken[key]!)} of ${formatAmount(key, most[key]!)} used`,
    );
    return {
      code: 'quota-exceeded',
      message: `The quota of the namespace does not leave room for the ${what}: ${lines.join('; ')}.`,
      detail: `Quota ${name}. ${detail}`,
      hint: 'Request less, stop something else in the namespace, or ask a template admin to raise the quota.',
      fault: 'user',
      // What can never fit fails at once; what something else uses may become free.
      fatal: Object.keys(asked).some((key) => amountOf(asked[key]!) > amountOf(most[key]!)),
    };
  }
  const unspecified = /failed quota: (\S+?): must specify (.+?)$/.exec(message);
  if (unspecified)
    return {
      code: 'quota-needs-limits',
      message: `The quota ${unspecified[1]} requires every container to set requests and limits; the ${what} does not.`,
      detail,
      hint: `The template must specify ${unspecified[2]}.`,
      fault: 'user',
      fatal: true,
    };
  const security = /violates PodSecurity "([^":]+)[^"]*": (.+)$/s.exec(message);
  if (security)
    return {
      code: 'pod-security-refused',
      message: `The ${what} is refused: the namespace requires Pod Security "${security[1]}".`,
      detail: security[2]!,
      hint: 'Change what the template requests, or its podSecurity (which the cluster must permit).',
      fault: 'user',
      fatal: true,
    };
  const range = /forbidden: \[?((?:maximum|minimum) .+? usage per .+?)\]?$/s.exec(message);
  if (range)
    return {
      code: 'limit-range-refused',
      message: `The ${what} is outside of what the namespace permits: ${range[1]}.`,
      detail,
      hint: 'Change the cpus and memory in the template or the parameters.',
      fault: 'user',
      fatal: true,
    };
  const denied = /admission webhook "([^"]+)" denied the request(?: without explanation)?:? ?(.*)$/s.exec(
    message,
  );
  if (denied)
    return {
      code: 'admission-refused',
      message: `The cluster's policy refuses the ${what}${denied[2] ? `: ${denied[2]}` : '.'}`,
      detail: `Refused by the webhook ${denied[1]}.`,
      hint: 'Change the template to match the policy, or ask a cluster administrator.',
      fault: 'user',
      fatal: true,
    };
  const policy = /ValidatingAdmissionPolicy '([^']+)'.* denied request: (.*)$/s.exec(message);
  if (policy)
    return {
      code: 'admission-refused',
      message: `The cluster's policy refuses the ${what}: ${policy[2]}`,
      detail: `Refused by the policy ${policy[1]}.`,
      hint: 'Change the template to match the policy, or ask a cluster administrator.',
      fault: 'user',
      fatal: true,
    };
  const silent = /failed calling webhook "([^"]+)"/.exec(message);
  if (silent)
    return {
      code: 'admission-webhook-away',
      message: `The cluster cannot admit the ${what}: its webhook ${silent[1]} does not answer.`,
      detail,
      hint: 'Ask a cluster administrator to check the webhook. The cluster retries by itself.',
      fault: 'system',
      fatal: false,
    };
  const account = /serviceaccount "([^"]+)" not found|error looking up service account \S+\/([^:\s]+)/.exec(
    message,
  );
  if (account)
    return {
      code: 'service-account-missing',
      message: `The service account ${account[1] ?? account[2]} of the namespace is missing.`,
      detail,
      hint: 'It was deleted. The next start creates it again.',
      fault: 'system',
      fatal: false,
    };
  const priority = /no PriorityClass with name (\S+) was found/.exec(message);
  if (priority)
    return {
      code: 'priority-class-missing',
      message: `The cluster has no priority class ${priority[1]}, which the ${what} asks for.`,
      detail,
      hint: 'Use an existing one in the template.',
      fault: 'user',
      fatal: true,
    };
  if (/because it is being terminated/.test(message))
    return {
      code: 'namespace-terminating',
      message: 'The namespace is being deleted.',
      detail,
      hint: 'It is created again once it is gone.',
      fault: 'system',
      fatal: false,
    };
  if (/is invalid: /.test(message))
    return {
      code: 'manifest-invalid',
      message: `The cluster does not accept the ${what}: ${message.replace(/^.*? is invalid: /s, '')}`,
      detail,
      hint: 'Ask a template admin to fix the template.',
      fault: 'user',
      fatal: true,
    };
  return {
    code: 'pod-refused',
    message: `The cluster does not accept the ${what}.`,
    detail,
    hint: 'The cluster retries by itself.',
    fault: 'system',
    fatal: false,
  };
}
