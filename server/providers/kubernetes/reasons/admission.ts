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

interface Rejected {
  /** "pod web-0". */
  what: string;
  /** Kubernetes' own. */
  message: string;
}

/** Explains messages that match the pattern. */
interface Rule {
  pattern: RegExp;
  explain: (match: RegExpExecArray, rejected: Rejected) => Reason;
}

const quotaExceeded: Rule = {
  pattern: /exceeded quota: (\S+), requested: (\S+), used: (\S+), limited: ([^\s"]+)/,
  explain([, name, requested = '', used = '', limited = ''], { what, message }) {
    const asked = amounts(requested);
    const taken = amounts(used);
    const max = amounts(limited);
    const lines = Object.keys(asked).map(
      (key) =>
        `${counted[key] ?? key}: ${formatAmount(key, asked[key]!)} requested, ${formatAmount(key, taken[key]!)} of ${formatAmount(key, max[key]!)} used`,
    );
    return {
      code: 'quota-exceeded',
      message: `The quota of the namespace does not leave room for the ${what}: ${lines.join('; ')}.`,
      detail: `Quota ${name}. ${message}`,
      hint: 'Request less, stop something else in the namespace, or ask a template admin to raise the quota.',
      fault: 'user',
      // What can never fit fails at once; what something else uses may become free.
      fatal: Object.keys(asked).some((key) => amountOf(asked[key]!) > amountOf(max[key]!)),
    };
  },
};

const quotaNeedsLimits: Rule = {
  pattern: /failed quota: (\S+?): must specify (.+?)$/,
  explain: ([, quota, fields], { what, message }) => ({
    code: 'quota-needs-limits',
    message: `The quota ${quota} requires every container to set requests and limits; the ${what} does not.`,
    detail: message,
    hint: `The template must specify ${fields}.`,
    fault: 'user',
    fatal: true,
  }),
};

const podSecurity: Rule = {
  pattern: /violates PodSecurity "([^":]+)[^"]*": (.+)$/s,
  explain: ([, level, violations], { what }) => ({
    code: 'pod-security-refused',
    message: `The ${what} is refused: the namespace requires Pod Security "${level}".`,
    detail: violations!,
    hint: 'Change what the template requests, or its podSecurity (which the cluster must permit).',
    fault: 'user',
    fatal: true,
  }),
};

const limitRange: Rule = {
  pattern: /forbidden: \[?((?:maximum|minimum) .+? usage per .+?)\]?$/s,
  explain: ([, limits], { what, message }) => ({
    code: 'limit-range-refused',
    message: `The ${what} is outside of what the namespace permits: ${limits}.`,
    detail: message,
    hint: 'Change the cpus and memory in the template or the parameters.',
    fault: 'user',
    fatal: true,
  }),
};

const webhookDenied: Rule = {
  pattern: /admission webhook "([^"]+)" denied the request(?: without explanation)?:? ?(.*)$/s,
  explain: ([, webhook, why], { what }) => ({
    code: 'admission-refused',
    message: `The cluster's policy refuses the ${what}${why ? `: ${why}` : '.'}`,
    detail: `Refused by the webhook ${webhook}.`,
    hint: 'Change the template to match the policy, or ask a cluster administrator.',
    fault: 'user',
    fatal: true,
  }),
};

const policyDenied: Rule = {
  pattern: /ValidatingAdmissionPolicy '([^']+)'.* denied request: (.*)$/s,
  explain: ([, policy, why], { what }) => ({
    code: 'admission-refused',
    message: `The cluster's policy refuses the ${what}: ${why}`,
    detail: `Refused by the policy ${policy}.`,
    hint: 'Change the template to match the policy, or ask a cluster administrator.',
    fault: 'user',
    fatal: true,
  }),
};

const webhookAway: Rule = {
  pattern: /failed calling webhook "([^"]+)"/,
  explain: ([, webhook], { what, message }) => ({
    code: 'admission-webhook-away',
    message: `The cluster cannot admit the ${what}: its webhook ${webhook} does not answer.`,
    detail: message,
    hint: 'Ask a cluster administrator to check the webhook. The cluster retries by itself.',
    fault: 'system',
    fatal: false,
  }),
};

const serviceAccountMissing: Rule = {
  pattern: /serviceaccount "([^"]+)" not found|error looking up service account \S+\/([^:\s]+)/,
  explain: ([, quoted, plain], { message }) => ({
    code: 'service-account-missing',
    message: `The service account ${quoted ?? plain} of the namespace is missing.`,
    detail: message,
    hint: 'It was deleted. The next start creates it again.',
    fault: 'system',
    fatal: false,
  }),
};

const priorityClassMissing: Rule = {
  pattern: /no PriorityClass with name (\S+) was found/,
  explain: ([, name], { what, message }) => ({
    code: 'priority-class-missing',
    message: `The cluster has no priority class ${name}, which the ${what} asks for.`,
    detail: message,
    hint: 'Use an existing one in the template.',
    fault: 'user',
    fatal: true,
  }),
};

const namespaceTerminating: Rule = {
  pattern: /because it is being terminated/,
  explain: (_, { message }) => ({
    code: 'namespace-terminating',
    message: 'The namespace is being deleted.',
    detail: message,
    hint: 'It is created again once it is gone.',
    fault: 'system',
    fatal: false,
  }),
};

const manifestInvalid: Rule = {
  pattern: /^.*? is invalid: (.*)$/s,
  explain: ([, why], { what, message }) => ({
    code: 'manifest-invalid',
    message: `The cluster does not accept the ${what}: ${why}`,
    detail: message,
    hint: 'Ask a template admin to fix the template.',
    fault: 'user',
    fatal: true,
  }),
};

/** The first that matches explains a message: several name a quota or a policy in the same words. */
const rules: readonly Rule[] = [
  quotaExceeded,
  quotaNeedsLimits,
  podSecurity,
  limitRange,
  webhookDenied,
  policyDenied,
  webhookAway,
  serviceAccountMissing,
  priorityClassMissing,
  namespaceTerminating,
  manifestInvalid,
];

/**
 * Explains why an API server rejects an object. `what`: "pod web-0"; `message`: Kubernetes' own. Rejections that depend on what
 * else runs at the moment are not fatal.
 */
export function explainRejection(what: string, message: string): Reason {
  for (const { pattern, explain } of rules) {
    const match = pattern.exec(message);
    if (match) return explain(match, { what, message });
  }
  return {
    code: 'pod-refused',
    message: `The cluster does not accept the ${what}.`,
    detail: message,
    hint: 'The cluster retries by itself.',
    fault: 'system',
    fatal: false,
  };
}
