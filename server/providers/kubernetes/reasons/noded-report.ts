import type { NodeKernelProfile } from '@cde/api/nodes.ts';
import { z } from 'zod';
import type { Kube } from '../api/models.ts';
import { kernelProfilesAnnotation } from '../api/node-view.ts';

const Text = z.string().max(4_000);
const Time = z.iso.datetime();
/** noded's report on a node: noded/report.ts. Other programs can write there too, so nothing of it is trusted. */
const Report = z.object({
  profiles: z
    .record(
      z.string(),
      z.object({
        state: z.enum(['ready', 'not-ready']),
        reason: Text.optional(),
        message: Text.optional(),
        since: Time.optional(),
        drift: z
          .object({ at: Time, sysctl: Text, from: Text, to: Text, by: Text.optional() })
          .optional()
          .catch(undefined),
      }),
    )
    .default({}),
  fault: Text.optional(),
  left: z.record(z.string(), Text).default({}),
});

export interface NodedReport {
  profiles: NodeKernelProfile[];
  fault: string | null;
  notRestored: { sysctl: string; message: string }[];
}

const empty: NodedReport = { profiles: [], fault: null, notRestored: [] };

/** What noded reports on a node; nothing if it does not run there. */
export function readNodedReport(node: Kube<'Node'>): NodedReport {
  const text = node.metadata.annotations?.[kernelProfilesAnnotation];
  if (text === undefined) return empty;
  let written: unknown;
  try {
    written = JSON.parse(text);
  } catch {
    return empty;
  }
  const { success, data } = Report.safeParse(written);
  if (!success) return empty;
  return {
    profiles: Object.entries(data.profiles)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, { state, reason, message, since, drift }]) => ({
        name,
        state,
        reason: reason ?? null,
        message: message ?? null,
        since: since ?? null,
        lastDrift: drift ? { ...drift, by: drift.by ?? null } : null,
      })),
    fault: data.fault ?? null,
    notRestored: Object.entries(data.left).map(([sysctl, message]) => ({ sysctl, message })),
  };
}
