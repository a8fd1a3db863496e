import { readdir, readFile } from 'node:fs/promises';
import type { Machine } from './machine.ts';

export interface Reply {
  status: number;
  headers: Headers;
  body: any;
  /** How long the answer took. */
  ms: number;
}
export type Api = (method: string, path: string, body?: unknown) => Promise<Reply>;

/** The API as the machine's user, straight, without the CLI's patience. */
export async function makeApi(machine: Machine, url: string): Promise<Api & { token: string }> {
  const made = await machine.cde('token', 'create', '--name', 'test', '--days', '1');
  if (made.code !== 0) throw new Error(made.stderr);
  const token = made.stdout.trim();
  const api: Api = async (method, path, body) => {
    const began = performance.now();
    const reply = await fetch(url + path, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await reply.text();
    return {
      status: reply.status,
      headers: reply.headers,
      body: text === '' ? undefined : JSON.parse(text),
      ms: performance.now() - began,
    };
  };
  return Object.assign(api, { token });
}

/** The agents of a workspace that are alive: by their name, and the home that is mounted where they run. */
export async function agentPids(workspaceId: string): Promise<number[]> {
  const pids: number[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const line = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    if (!line.startsWith('cde-agent')) continue;
    const mounts = await readFile(`/proc/${name}/mountinfo`, 'utf8').catch(() => '');
    if (mounts.includes(`/homes/${workspaceId} `)) pids.push(Number(name));
  }
  return pids;
}
