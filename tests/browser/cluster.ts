import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';

const answersWithinMs = 2_000;

/** The kubeconfig of the test cluster, or null if it is not reachable. These tests do not start one. */
export async function findCluster(): Promise<string | null> {
  const path = process.env.CDE_TEST_KUBECONFIG || join(homedir(), '.cache', 'cde', 'cluster', 'kubeconfig');
  if (!existsSync(path)) return null;
  const text = readFileSync(path, 'utf8');
  const server = new URL(/server: "?([^\s"]+)/.exec(text)![1]!);
  const socket = connect(Number(server.port || 443), server.hostname);
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(answersWithinMs) });
    return text;
  } catch {
    return null;
  } finally {
    socket.destroy();
  }
}
