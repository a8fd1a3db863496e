/**
 * Runs the agents of pods on simulated nodes. For each pod it reads the token from the pod's Secret, registers at the
 * server with the agent's own code, listens at the satellites, reports that there is no startup script, and reports
 * stats. There is no shell and no SSH server: streams that clients open are closed. Arguments: KUBECONFIG, the prefix of
 * the namespaces, and this process's share of them (`0/2`). Sends by IPC how many pods run, and how many agents are
 * registered and connected.
 */
import { readFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeActivity } from '@cde/agent/activity/activity.ts';
import { hostKeyPath, readHostKey } from '@cde/agent/host-key.ts';
import { makeHosting } from '@cde/agent/hosting.ts';
import { makeServerClient, retryTransient } from '@cde/agent/server/client.ts';
import { register } from '@cde/agent/server/registration.ts';
import { makeSessions } from '@cde/agent/sessions.ts';
import { reportStats } from '@cde/agent/stats/report.ts';
import { makeStatsCollector } from '@cde/agent/stats/stats.ts';
import { type AgentManifest, agentEnvironment, postAgentStartup } from '@cde/api/agent.ts';
import type { KubeObject } from '@cde/server/providers/kubernetes/api/client.ts';
import { makeKubeClient } from '@cde/server/providers/kubernetes/api/kube-client.ts';
import { startReflector } from '@cde/server/providers/kubernetes/api/reflector.ts';
import { makeCertificate } from '@cde/tunnel/auth/certificate.ts';
import { systemClock } from '@cde/tunnel/clock.ts';

export interface AgentCounts {
  /** Pods that run now, and when the last one started. */
  running: number;
  runningAt: number;
  registered: number;
  connected: number;
  connectedAt: number;
}

const [kubeconfig, prefix, share] = process.argv.slice(2) as [string, string, string];
const [index, processes] = share.split('/').map(Number) as [number, number];
const client = await makeKubeClient({
  name: 'agents',
  credentials: { kind: 'kubeconfig', text: readFileSync(kubeconfig, 'utf8') },
});
const hostKey = await readHostKey(hostKeyPath(join(tmpdir(), `cde-bench-agents-${process.pid}`)));
const quiet = { debug() {}, info() {}, warn() {}, error() {} };

const counts: AgentCounts = { running: 0, runningAt: 0, registered: 0, connected: 0, connectedAt: 0 };
const running = new Map<string, () => void>();
let isScheduled = false;
function report(): void {
  if (isScheduled) return;
  isScheduled = true;
  setTimeout(() => {
    isScheduled = false;
    process.send!({ counts });
  }, 100);
}

/** Runs the agent of one pod until `signal`. */
async function runAgent(pod: KubeObject, signal: AbortSignal): Promise<void> {
  const { containers } = pod.spec as { containers: { env: { name: string; value?: string }[] }[] };
  const serverUrl = containers[0]!.env.find(({ name }) => name === agentEnvironment.serverUrl)!.value!;
  const namespace = pod.metadata.namespace!;
  const secret = await client.get({ apiVersion: 'v1', kind: 'Secret', namespace, name: 'cde-agent' });
  const token = Buffer.from((secret!.data as { token: string }).token, 'base64').toString();
  const server = makeServerClient({ urls: serverUrl, token });
  const certificate = await makeCertificate();
  const sessions = makeSessions();
  let listen = () => {};
  const registration = await register({
    client: server,
    identity: {
      tlsPublicKey: certificate.fingerprint,
      sshHostKey: hostKey.publicKey,
      version: 'bench',
      hostname: hostname(),
    },
    signal,
    onManifest: () => listen(),
    onRejected: () => {},
  });
  counts.registered++;
  signal.addEventListener('abort', () => counts.registered--);
  const manifest = (): AgentManifest => registration.manifest;
  const connected = new Set<string>();
  const activity = makeActivity();
  const hosting = makeHosting({
    certificate,
    manifest,
    listenToken: registration.listenToken,
    ssh: Promise.resolve({ serve: (stream) => void stream.destroy() }),
    sessions,
    activity,
    onState(satellite, isConnected) {
      const before = connected.size > 0;
      if (isConnected) connected.add(satellite);
      else connected.delete(satellite);
      counts.connected += Number(connected.size > 0) - Number(before);
      if (isConnected) counts.connectedAt = Date.now();
      report();
    },
    clock: systemClock,
    log: quiet,
  });
  listen = hosting.listen;
  if (signal.aborted) return;
  listen();
  signal.addEventListener('abort', () => {
    if (connected.size > 0) counts.connected--;
    connected.clear();
    hosting.close();
    report();
  });
  await retryTransient(() => server.call(postAgentStartup, { body: { state: 'none' } }), { signal });
  reportStats({
    collector: await makeStatsCollector({ home: tmpdir, sessions }),
    activity,
    client: server,
    everyMs: () => manifest().statsEveryMs,
    signal,
    onFailure: () => {},
  });
}

function onPod(pod: KubeObject, gone: boolean): void {
  const { namespace, uid, deletionTimestamp } = pod.metadata;
  if (!namespace!.startsWith(prefix) || Number(/\d+$/.exec(namespace!)?.[0]) % processes !== index) return;
  const { phase } = (pod.status ?? {}) as { phase?: string };
  const runs = !gone && !deletionTimestamp && phase === 'Running';
  if (runs === running.has(uid!)) return;
  if (!runs) {
    running.get(uid!)!();
    running.delete(uid!);
  } else {
    const control = new AbortController();
    running.set(uid!, () => control.abort());
    counts.runningAt = Date.now();
    runAgent(pod, control.signal).catch((error) => {
      if (!control.signal.aborted) console.error(`agent of ${namespace}: ${error.message}`);
    });
  }
  counts.running = running.size;
  report();
}

// A pod that is missing from a later list goes unnoticed; its agent's token is then invalid.
startReflector(
  client,
  { apiVersion: 'v1', kind: 'Pod', labels: 'cde.dev/managed=true' },
  {
    onList: (pods) => {
      for (const pod of pods) onPod(pod, false);
    },
    onObject: (type, pod) => onPod(pod, type === 'DELETED'),
    onState: () => {},
  },
);
process.on('disconnect', () => process.exit(0));
