import type { Drift } from './contention.ts';
import type { PassResult, ProfileState } from './reconcile.ts';

export const labelPrefix = 'cde.dev/kernel-profile.';
export const annotationKey = 'cde.dev/kernel-profiles';

/** The part of a node that noded reads and writes. */
export interface NodeView {
  uid: string;
  labels: Readonly<Record<string, string>>;
  annotations: Readonly<Record<string, string>>;
}

/** The annotation `cde.dev/kernel-profiles`, as JSON. */
export interface NodeReport {
  profiles: Record<string, ProfileState & { since?: string; drift?: Drift }>;
  /** What is wrong with the file of profiles; the last valid one is in force. */
  fault?: string;
  /** What could not be restored, by sysctl. */
  left?: Record<string, string>;
}

/** A change of the node's labels and annotations; null removes a key. */
export interface NodePatch {
  labels: Record<string, string | null>;
  annotations: Record<string, string | null>;
}

export interface NodeEvent {
  type: 'Normal' | 'Warning';
  reason:
    | 'KernelProfileReady'
    | 'KernelProfileNotReady'
    | 'KernelProfileDrift'
    | 'KernelProfilesFaulty'
    | 'SysctlNotRestored';
  message: string;
}

/** The annotation appears in lists of nodes, and the server ignores a report with longer texts. Some sysctls have values of 64 KiB. */
const maxMessageLength = 500;
const shorten = (text: string) =>
  text.length > maxMessageLength ? `${text.slice(0, maxMessageLength - 1)}…` : text;

/** Whether a profile is still as it was, apart from words. */
const isSameState = (a: ProfileState, b: ProfileState) =>
  a.state === b.state && ('reason' in a ? a.reason : null) === ('reason' in b ? b.reason : null);

/** What the node reports. Null: no profile applies to it, and nothing is wrong. `before`: the last report. */
export function makeReport(
  pass: PassResult | null,
  fault: string | null,
  before: Partial<NodeReport> | null,
  now: Date,
): NodeReport | null {
  const profiles = Object.fromEntries(
    [...(pass?.states ?? [])].map(([name, state]): [string, NodeReport['profiles'][string]] => {
      const drift = pass?.drifts.get(name);
      const old = before?.profiles?.[name];
      return [
        name,
        {
          ...state,
          ...('message' in state && { message: shorten(state.message) }),
          since: (old && isSameState(old, state) && old.since) || now.toISOString(),
          ...(drift && { drift: { ...drift, from: shorten(drift.from), to: shorten(drift.to) } }),
        },
      ];
    }),
  );
  const report: NodeReport = {
    profiles,
    ...(fault && { fault: shorten(fault) }),
    ...(pass &&
      pass.left.size > 0 && {
        left: Object.fromEntries([...pass.left].slice(0, 10).map(([sysctl, why]) => [sysctl, shorten(why)])),
      }),
  };
  return Object.keys(profiles).length === 0 && !report.fault && !report.left ? null : report;
}

/** The patch that makes the node report it; null if it does already. Labels of removed profiles are removed too. */
export function diffPatch(node: NodeView, report: NodeReport | null): NodePatch | null {
  const labels: Record<string, string | null> = {};
  for (const [name, { state }] of Object.entries(report?.profiles ?? {}))
    if (state === 'ready' && node.labels[labelPrefix + name] !== 'ready')
      labels[labelPrefix + name] = 'ready';
  for (const key of Object.keys(node.labels))
    if (key.startsWith(labelPrefix) && report?.profiles[key.slice(labelPrefix.length)]?.state !== 'ready')
      labels[key] = null;
  const annotations: Record<string, string | null> = {};
  const text = report && JSON.stringify(report);
  if ((node.annotations[annotationKey] ?? null) !== text) annotations[annotationKey] = text;
  return Object.keys(labels).length + Object.keys(annotations).length === 0 ? null : { labels, annotations };
}

/** The node's last report; empty if it has none, or if something else wrote there. */
export function lastReport(node: NodeView): Partial<NodeReport> {
  try {
    return (JSON.parse(node.annotations[annotationKey] ?? '{}') ?? {}) as Partial<NodeReport>;
  } catch {
    return {};
  }
}

/** The drifts that the node reports. */
export const driftsOf = (node: NodeView): Drift[] =>
  Object.values(lastReport(node).profiles ?? {}).flatMap((profile) => profile?.drift ?? []);

/** What has changed since the node's last report, for people who read its events. */
export function eventsOf(node: NodeView, report: NodeReport | null): NodeEvent[] {
  const before = lastReport(node);
  const events: NodeEvent[] = [];
  for (const [name, state] of Object.entries(report?.profiles ?? {})) {
    const old = before.profiles?.[name];
    const { drift } = state;
    if (drift && drift.at !== old?.drift?.at)
      events.push({
        type: 'Warning',
        reason: 'KernelProfileDrift',
        message: `The kernel profile ${name}: ${drift.sysctl} was changed to ${drift.from}, and noded set it to ${drift.to} again${drift.by ? ` (${drift.by})` : ''}.`,
      });
    const reason = 'reason' in state ? state.reason : null;
    if (old && isSameState(old, state)) continue;
    events.push(
      state.state === 'ready'
        ? { type: 'Normal', reason: 'KernelProfileReady', message: `The kernel profile ${name} is applied.` }
        : {
            type: 'Warning',
            reason: 'KernelProfileNotReady',
            message: `The kernel profile ${name} is not applied (${reason}): ${state.message}`,
          },
    );
  }
  if (report?.fault && report.fault !== before.fault)
    events.push({
      type: 'Warning',
      reason: 'KernelProfilesFaulty',
      message: `The kernel profiles are invalid. The last valid ones stay in force. ${report.fault}`,
    });
  for (const [sysctl, why] of Object.entries(report?.left ?? {}))
    if (!before.left?.[sysctl]) events.push({ type: 'Warning', reason: 'SysctlNotRestored', message: why });
  return events;
}
