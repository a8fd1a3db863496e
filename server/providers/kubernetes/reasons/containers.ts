import { constants } from 'node:os';
import type { ContainerStatus } from '../api/models.ts';
import { explainImage } from './images.ts';
import { type EventRecord, newest, type PodSnapshot, type Reason, type Terminated } from './reading.ts';
import { formatAmount } from './scheduling.ts';

/** After this many crashes, more are expected. The first can be a race with something else. */
const fatalRestarts = 3;

/** `was killed by SIGKILL`, `exited with code 2`; with the meaning of common codes of shells and runtimes. */
export function describeExit({ exitCode, signal }: Terminated): string {
  const number = signal || (exitCode > 128 && exitCode < 160 ? exitCode - 128 : 0);
  const name = number
    ? Object.entries(constants.signals).find(([, value]) => value === number)?.[0]
    : undefined;
  if (name) return `was killed by ${name}`;
  if (exitCode === 0) return 'ended by itself (exit code 0)';
  const meaning = { 126: 'not executable', 127: 'command not found' }[exitCode];
  return `exited with code ${exitCode}${meaning ? ` (${meaning})` : ''}`;
}

/** For a container that was killed for its memory: `out of memory (limit 4Gi)`. */
export function describeOutOfMemory(pod: PodSnapshot, container: ContainerStatus): string {
  const limit = pod.specOf(container.name)?.resources?.limits?.memory;
  return `out of memory${limit ? ` (limit ${formatAmount('memory', limit)})` : ''}`;
}

export const isOutOfMemory = (ended: Pick<Terminated, 'reason' | 'message'> | undefined): boolean =>
  ended?.reason === 'OOMKilled' || /OOM-killed|memory limit too low/.test(ended?.message ?? '');

/**
 * What blocks the containers of a pod that has a node: init containers in their order, then the others.
 * `lastLines`: the end of the log of the container that crashed.
 */
export function explainContainers(
  pod: PodSnapshot,
  events: EventRecord[],
  lastLines: string | undefined,
): Reason | null {
  for (const init of pod.inits) {
    const ended = init.state?.terminated;
    if (ended?.exitCode === 0) continue;
    const sidecar = pod.specOf(init.name)?.restartPolicy === 'Always';
    const reason =
      explainImage(init, pod) ??
      explainNotCreated(init, pod) ??
      (sidecar ? explainCrash(init, pod, lastLines) : explainInitFailure(init, pod, lastLines));
    if (reason) return reason;
    // Later containers wait for it.
    if (!sidecar || init.started === false) return null;
  }
  for (const explain of [explainImage, explainNotCreated]) {
    for (const container of pod.containers) {
      const reason = explain(container, pod);
      if (reason) return reason;
    }
  }
  for (const container of pod.containers) {
    const reason = explainCrash(container, pod, lastLines);
    if (reason) return reason;
  }
  for (const container of pod.containers) {
    if (!container.state?.running || container.ready) continue;
    const probe = newest(events, (event) => event.of.uid === pod.uid && event.reason === 'Unhealthy');
    if (probe)
      return {
        code: 'not-ready',
        message: `The container ${container.name} runs but is not ready.`,
        detail: probe.message,
        hint: 'The cluster checks again by itself.',
        fault: 'user',
        fatal: false,
      };
  }
  return null;
}

/** The container cannot be created. */
function explainNotCreated(container: ContainerStatus, pod: PodSnapshot): Reason | null {
  const waiting = container.state?.waiting;
  const ended = container.state?.terminated ?? container.lastState?.terminated;
  const reasons = [
    'CreateContainerConfigError',
    'CreateContainerError',
    'RunContainerError',
    'PostStartHookError',
  ];
  const started = ended?.reason === 'StartError' || ended?.reason === 'ContainerCannotRun';
  if (!reasons.includes(waiting?.reason ?? '') && !started) return null;
  const said = (started ? ended?.message : waiting?.message) ?? waiting?.message ?? '';
  const image = pod.specOf(container.name)?.image ?? '';
  const base = { detail: said, fault: 'user' as const, fatal: true };
  if (/runAsNonRoot|non-root policy/.test(said))
    return {
      ...base,
      code: 'image-runs-as-root',
      message: /non-numeric/.test(said)
        ? `The user of the image ${image} has a name only, so that the node cannot tell whether it is root.`
        : `The image ${image} would run as root, which is not permitted here.`,
      hint: 'Set a uid in the template (kubernetes.user), or use an image with a numeric USER.',
    };
  const key =
    /(?:couldn't find key (\S+) in (Secret|ConfigMap) (\S+))|(secret|configmap) "([^"]+)" not found/i.exec(
      said,
    );
  if (key)
    return {
      ...base,
      code: 'env-source-missing',
      message: key[1]
        ? `The ${key[2]} ${key[3]} has no ${key[1]}, which the container ${container.name} needs.`
        : `The ${key[4]} ${key[5]} that the container ${container.name} needs does not exist.`,
      hint: 'Add it to the template. The cluster retries by itself.',
      fatal: false,
    };
  if (isOutOfMemory({ message: said }))
    return {
      ...base,
      code: 'out-of-memory',
      message: `The container ${container.name} cannot start: ${describeOutOfMemory(pod, container)}.`,
      hint: 'Raise the memory in the template or the parameters.',
    };
  const command = describeCommandFailure(said);
  if (command) return { ...base, ...command, message: `The image ${image} cannot run: ${command.message}` };
  return {
    ...base,
    code: 'container-not-made',
    message: `The container ${container.name} cannot be created.`,
    hint: 'The cluster retries by itself.',
    fault: 'system',
    fatal: false,
  };
}

/** The command cannot be run, according to the kernel, the runtime or the shell. */
function describeCommandFailure(said: string): { code: string; message: string; hint: string } | null {
  if (/exec format error/i.test(said))
    return {
      code: 'wrong-architecture',
      message: 'it is made for another architecture than the node has (exec format error).',
      hint: 'Build the image for the architecture of the nodes, or select other nodes with nodeSelector.',
    };
  const absent =
    /exec: "([^"]+)": (?:executable file not found|stat [^:]*: no such file)|exec (\S+?): no such file or directory/.exec(
      said,
    );
  if (absent)
    return {
      code: 'command-not-found',
      message: `the command ${absent[1] ?? absent[2]} is not in it.`,
      hint: 'Check the command in the template, and whether the image contains it.',
    };
  const barred = /exec: "([^"]+)": permission denied|exec (\S+?): permission denied/.exec(said);
  if (barred)
    return {
      code: 'command-not-executable',
      message: `the command ${barred[1] ?? barred[2]} may not be executed by its user.`,
      hint: 'Check its mode in the image, and kubernetes.user in the template.',
    };
  return null;
}

/** An init container that failed. Ours write a code and a sentence as their termination message. */
function explainInitFailure(
  init: ContainerStatus,
  pod: PodSnapshot,
  lastLines: string | undefined,
): Reason | null {
  const ended = init.state?.terminated ?? init.lastState?.terminated;
  if (!ended || ended.exitCode === 0) return null;
  if (isOutOfMemory(ended)) return explainOutOfMemory(init, pod, ended, lastLines);
  const parsed = readTermination(ended.message);
  const detail = lastLines?.trim() || ended.message?.trim() || '';
  if (parsed)
    return {
      code: parsed.code,
      message: parsed.message,
      ...(parsed.detail && { detail: parsed.detail }),
      ...(parsed.hint && { hint: parsed.hint }),
      fault: parsed.fault ?? 'user',
      fatal: true,
    };
  const command = describeCommandFailure(detail);
  if (command)
    return {
      ...command,
      message: `The image ${pod.specOf(init.name)?.image} cannot run: ${command.message}`,
      detail,
      fault: 'user',
      fatal: true,
    };
  return {
    code: 'init-failed',
    message: `The init container ${init.name} ${describeExit(ended)}.`,
    ...(detail && { detail }),
    hint: 'The cluster retries by itself. If the container comes from the template, fix it there.',
    fault: 'system',
    fatal: init.restartCount >= fatalRestarts,
  };
}

interface TerminationMessage {
  code: string;
  message: string;
  detail?: string;
  hint?: string;
  fault?: Reason['fault'];
}

/** The termination message of our own init programs: `{"code", "message", …}` or `code: sentence`. */
function readTermination(text: string | undefined): TerminationMessage | null {
  const said = text?.trim() ?? '';
  if (said.startsWith('{')) {
    try {
      const parsed = JSON.parse(said) as Partial<TerminationMessage>;
      return typeof parsed.code === 'string' && typeof parsed.message === 'string'
        ? (parsed as TerminationMessage)
        : null;
    } catch {
      return null;
    }
  }
  const match = /^([a-z]+(?:-[a-z]+)+): (.+)$/s.exec(said);
  return match ? { code: match[1]!, message: match[2]! } : null;
}

function explainOutOfMemory(
  container: ContainerStatus,
  pod: PodSnapshot,
  ended: Terminated,
  lastLines?: string,
): Reason {
  return {
    code: 'out-of-memory',
    message: `The container ${container.name} was killed: ${describeOutOfMemory(pod, container)}.`,
    detail: lastLines?.trim() || ended.message?.trim() || '',
    hint: 'Raise the memory in the template or the parameters.',
    fault: 'user',
    fatal: container.restartCount >= fatalRestarts - 1,
  };
}

/** A container that ended and is or will be restarted. */
function explainCrash(
  container: ContainerStatus,
  pod: PodSnapshot,
  lastLines: string | undefined,
): Reason | null {
  const now = container.state;
  const ended =
    now?.terminated ?? (now?.running && container.ready ? undefined : container.lastState?.terminated);
  if (!ended) return null;
  if (isOutOfMemory(ended)) return explainOutOfMemory(container, pod, ended, lastLines);
  const detail = lastLines?.trim() || ended.message?.trim() || '';
  const command = describeCommandFailure(detail);
  if (command)
    return {
      ...command,
      message: `The image ${pod.specOf(container.name)?.image} cannot run: ${command.message}`,
      detail,
      fault: 'user',
      fatal: true,
    };
  const restarts = container.restartCount;
  return {
    code: 'crashed',
    message: `The container ${container.name} ${describeExit(ended)}${restarts > 1 ? `, ${restarts} times` : ''}.`,
    detail: detail || 'It printed nothing.',
    hint: 'Its last lines are above. Fix their cause, then start the workspace again.',
    fault: 'user',
    fatal: restarts >= fatalRestarts,
  };
}
