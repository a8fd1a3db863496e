import { mkdir } from 'node:fs/promises';
import { type Machine, makeMachine, type Server } from '../tests/kit/machine.ts';

/** Starts a real server in a temporary folder, and returns its owner's token. */
export async function warmServer(): Promise<{
  machine: Machine;
  server: Server;
  token: string;
  url: string;
}> {
  const machine = await makeMachine();
  await mkdir(machine.env.HOME!, { recursive: true });
  const server = await machine.start();
  const { stdout } = await machine.cde('token', 'create', '--name', 'bench', '--json');
  return { machine, server, url: server.url, token: (JSON.parse(stdout) as { token: string }).token };
}

export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)]!;
};
export const ms = (value: number): string => `${value.toFixed(0).padStart(5)} ms`;
