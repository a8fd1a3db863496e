import { type Contention, type Drift, makeContention } from './contention.ts';
import { expandInterfaces } from './interfaces.ts';
import type { Modules } from './modules.ts';
import type { Original, Originals } from './originals.ts';
import { makePlan } from './plan.ts';
import type { Profile, SysctlTarget } from './profiles.ts';
import { hugePages, type Sysctls } from './sysctls.ts';

export type NotReadyReason =
  | 'conflict'
  | 'contested'
  | 'module-failed'
  | 'sysctl-missing'
  | 'sysctl-refused'
  | 'sysctl-not-taken'
  | 'sysctl-not-a-number';

/** The state of a profile on this node. */
export type ProfileState =
  | { state: 'ready' }
  | { state: 'not-ready'; reason: NotReadyReason; message: string };

/** The result of one pass over the kernel. */
export interface PassResult {
  states: Map<string, ProfileState>;
  /** What could not be restored, with the reason. */
  left: Map<string, string>;
  /** The last drift of each profile that had one. */
  drifts: Map<string, Drift>;
  /** Every sysctl that is maintained now. */
  maintained: string[];
}

/** A change of the kernel, for the log and the metrics. */
export type Change =
  | { what: 'set' | 'repaired' | 'restored'; sysctl: string; from: string; to: string; by?: string }
  /** Something else has changed the value since, so it is no longer ours. */
  | { what: 'given-up'; sysctl: string; from: string; to: string };

export interface Reconciler {
  /** Applies these profiles to the kernel, and restores what none of them names. */
  pass(profiles: readonly Profile[]): Promise<PassResult>;
}

/** How long a value that the kernel rejected is not tried again. */
const refusalBackoffMs = 30_000;
const wholeNumber = /^-?\d{1,20}$/;
const failure = (reason: NotReadyReason, message: string): ProfileState => ({
  state: 'not-ready',
  reason,
  message,
});
const describeError = (error: unknown) => {
  const { code, message } = error as NodeJS.ErrnoException;
  return code === 'EINVAL' ? 'the kernel rejects this value (EINVAL)' : message;
};

/** If we were killed during a write, its result is unknown, but it was ours. */
const isOurs = (record: Pick<Original, 'set'> | undefined, value: string) =>
  record !== undefined && (record.set.includes(value) || record.set.length > 1);
/** Whether we had set this value, so that another one is the work of another program. */
const wasSet = (
  record: Original | undefined,
  next: string,
  made: { next: string; value: string } | undefined,
) =>
  record?.set.length === 1 &&
  (record.set[0] === next || (made?.next === next && made.value === record.set[0]));
const otherNamespace = (sysctl: string) =>
  `${sysctl} was set in another namespace than noded is in now: give it hostNetwork (net.*) or hostPID back.`;

/** The profiles are those that apply to this node. */
export function makeReconciler({
  sysctls,
  modules,
  originals,
  contention = makeContention(),
  interfacesOf = () => [],
  onChange = () => {},
  now = () => performance.now(),
}: {
  sysctls: Sysctls;
  modules: Modules;
  originals: Originals;
  contention?: Contention;
  /** The interfaces of `net.ipv4.conf` and its like. */
  interfacesOf?: (family: string) => readonly string[];
  onChange?: (change: Change) => void;
  /** Monotonic milliseconds. */
  now?: () => number;
}): Reconciler {
  /** Values that the kernel rejected, which are not tried again at once. */
  const refusals = new Map<string, { value: string; next: string; at: number; state: ProfileState }>();
  /** What the kernel made of a value, if that is as good: some round up. */
  const rounded = new Map<string, { next: string; value: string }>();
  const holds = (value: string, wanted: SysctlTarget) =>
    'exact' in wanted ? value === wanted.exact : wholeNumber.test(value) && BigInt(value) >= wanted.atLeast;

  /** The value to write, or the present one. A larger value than asked for is left alone unless we set it. */
  function target(value: string, wanted: SysctlTarget, sysctl: string): string {
    if ('exact' in wanted) return wanted.exact;
    const record = originals.get(sysctl);
    if (BigInt(value) >= wanted.atLeast && !isOurs(record, value)) return value;
    const before = record && wholeNumber.test(record.original) ? BigInt(record.original) : wanted.atLeast;
    return String(before > wanted.atLeast ? before : wanted.atLeast);
  }

  function reconcileSysctl(sysctl: string, wanted: SysctlTarget, isOptional: boolean): ProfileState | null {
    const value = sysctls.read(sysctl);
    if (value === null)
      return isOptional
        ? null
        : failure(
            'sysctl-missing',
            `The kernel has no ${sysctl}. A module or a newer kernel may provide it.`,
          );
    if ('atLeast' in wanted && !wholeNumber.test(value))
      return failure(
        'sysctl-not-a-number',
        `${sysctl} is not a single number (${value}), so the profile must give the whole value.`,
      );
    const record = originals.get(sysctl);
    const namespace = sysctls.namespaceOf(sysctl);
    if (record && record.namespace !== namespace) return failure('sysctl-refused', otherNamespace(sysctl));
    const next = target(value, wanted, sysctl);
    const known = rounded.get(sysctl);
    // What was good enough for `atLeast` is not for an exact value.
    const made = known && holds(known.value, wanted) ? known : undefined;
    if (made?.next === next && made.value === value) return contested(sysctl);
    // Otherwise it is the profile that has changed.
    const hasDrifted = value !== next && wasSet(record, next, made);
    if (hasDrifted && !contention.mayRepair(sysctl)) return contested(sysctl);
    const before = refusals.get(sysctl);
    if (before?.value === value && before.next === next && now() - before.at < refusalBackoffMs)
      return before.state;
    refusals.delete(sysctl);
    const state = change(sysctl, wanted, { value, next, record, namespace, hasDrifted });
    if (isOptional && sysctls.read(sysctl) === null) {
      // The interface disappeared in the meantime.
      originals.put(sysctl, undefined);
      return null;
    }
    if (state) refusals.set(sysctl, { value: sysctls.read(sysctl) ?? '', next, at: now(), state });
    return state ?? contested(sysctl);
  }

  function contested(sysctl: string): ProfileState | null {
    const message = contention.describe(sysctl);
    return message === null ? null : failure('contested', message);
  }

  function change(
    sysctl: string,
    wanted: SysctlTarget,
    {
      value,
      next,
      record,
      namespace,
      hasDrifted,
    }: {
      value: string;
      next: string;
      record: Original | undefined;
      namespace: string | null;
      hasDrifted: boolean;
    },
  ): ProfileState | null {
    if (value === next) {
      if (record && record.set.length > 1) originals.put(sysctl, { ...record, set: [value] });
      return null;
    }
    originals.put(sysctl, {
      original: record?.original ?? value,
      set: [...new Set([...(record?.set ?? [value]), next])],
      namespace,
    });
    let refusal: unknown = null;
    try {
      sysctls.write(sysctl, next);
    } catch (error) {
      refusal = error;
    }
    // The kernel is read in any case: what it accepted, not what it said, must be restored one day.
    const after = sysctls.read(sysctl) ?? value;
    if (after === value) originals.put(sysctl, record);
    else {
      originals.put(sysctl, { original: record?.original ?? value, set: [after], namespace });
      if (hasDrifted) contention.repaired({ sysctl, from: value, to: after });
      const by = hasDrifted ? contention.drift(sysctl)?.by : undefined;
      onChange({
        what: hasDrifted ? 'repaired' : 'set',
        sysctl,
        from: value,
        to: after,
        ...(by !== undefined && { by }),
      });
    }
    if (refusal)
      return failure('sysctl-refused', `${sysctl} cannot be set to ${next}: ${describeError(refusal)}.`);
    if (holds(after, wanted)) {
      rounded.set(sysctl, { next, value: after });
      return null;
    }
    return failure(
      'sysctl-not-taken',
      `${sysctl} was set to ${next}, but the kernel changed that to ${after}.`,
    );
  }

  /** Null: it is as it was before us, or it belongs to something else. */
  function restore(sysctl: string): string | null {
    const { original, set, namespace } = originals.get(sysctl)!;
    if (namespace !== sysctls.namespaceOf(sysctl)) return otherNamespace(sysctl);
    const value = sysctls.read(sysctl);
    // The kernel has it until it ends, so the folder is not mounted here.
    if (value === null && sysctl.startsWith(hugePages))
      return `${sysctl} cannot be restored to ${original}: noded does not see it. Turn noded.hugePages on again.`;
    if (value !== null && value !== original) {
      if (isOurs({ set }, value)) {
        try {
          sysctls.write(sysctl, original);
        } catch (error) {
          return `${sysctl} cannot be restored to ${original}: ${describeError(error)}.`;
        }
        const now = sysctls.read(sysctl);
        if (now !== original)
          return `${sysctl} was restored to ${original}, but the kernel changed that to ${now}.`;
        onChange({ what: 'restored', sysctl, from: value, to: original });
      } else onChange({ what: 'given-up', sysctl, from: value, to: original });
    }
    originals.put(sysctl, undefined);
    return null;
  }

  /** What prevents a profile, checked before anything is written for it. */
  async function findBlocker(profile: Profile): Promise<ProfileState | null> {
    for (const module of profile.modules) {
      const why = await modules.ensure(module);
      if (why !== null) return failure('module-failed', `The module ${module} cannot be loaded: ${why}`);
    }
    const missing = [...profile.sysctls.keys()].filter(
      (sysctl) => !profile.optional?.has(sysctl) && sysctls.read(sysctl) === null,
    );
    return missing.length > 0
      ? failure(
          'sysctl-missing',
          `The kernel has no ${missing.join(', ')}. A module or a newer kernel may provide it.`,
        )
      : null;
  }

  return {
    async pass(given) {
      const profiles = expandInterfaces(given, interfacesOf);
      const plan = makePlan(profiles);
      const states = new Map<string, ProfileState>();
      for (const [name, why] of plan.conflicts)
        states.set(name, failure('conflict', `${why}. None of these is applied until they agree.`));
      const agreed = profiles.filter(({ name }) => !plan.conflicts.has(name));
      for (const profile of agreed) {
        const against = await findBlocker(profile);
        if (against) states.set(profile.name, against);
      }
      const results = new Map<string, ProfileState | null>();
      for (const profile of agreed) {
        if (states.has(profile.name)) continue;
        let state: ProfileState = { state: 'ready' };
        for (const sysctl of profile.sysctls.keys()) {
          if (!results.has(sysctl)) {
            const isOptional = profile.optional?.has(sysctl) ?? false;
            results.set(sysctl, reconcileSysctl(sysctl, plan.wanted.get(sysctl)!, isOptional));
          }
          const failed = results.get(sysctl);
          if (failed && state.state === 'ready') state = failed;
        }
        states.set(profile.name, state);
      }
      const left = new Map<string, string>();
      for (const sysctl of originals.names().filter((name) => !plan.claimed.has(name))) {
        const why = restore(sysctl);
        if (why) left.set(sysctl, why);
      }
      contention.retain(plan.claimed);
      for (const known of [refusals, rounded])
        for (const sysctl of known.keys()) if (!plan.claimed.has(sysctl)) known.delete(sysctl);
      const drifts = new Map<string, Drift>();
      for (const { name, sysctls } of profiles) {
        const last = [...sysctls.keys()]
          .flatMap((sysctl) => contention.drift(sysctl) ?? [])
          .reduce<Drift | null>((a, b) => (a && a.at >= b.at ? a : b), null);
        if (last) drifts.set(name, last);
      }
      return {
        states: new Map(profiles.map(({ name }) => [name, states.get(name)!])),
        left,
        drifts,
        maintained: [...results.keys()],
      };
    },
  };
}
