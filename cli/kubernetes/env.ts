import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Builder } from '@cde/api/clusters.ts';
import type { Context } from '../command/context.ts';
import { serverEnvironment } from '../connection/connection.ts';
import { getBuilder } from '../connection/endpoints.ts';
import { toFailure } from '../failure/failure.ts';
import { runForeground } from '../processes/foreground.ts';
import { openPorts } from '../ssh/forward/port-forward.ts';
import { pathRef } from '../workspaces/reference.ts';
import { builderEnvironment } from './builder-env.ts';
import { type BuilderTunnel, openBuilderTunnel } from './builder-tunnel.ts';
import { kubeCredentials } from './credentials.ts';
import { contextOf } from './kubeconfig.ts';
import { standaloneConfig } from './merge.ts';

/** The builder of a workspace; null if it has none. */
async function findBuilder(context: Context, workspace: string): Promise<Builder | null> {
  const client = await context.client();
  try {
    return await client.call(getBuilder, { params: { workspace: pathRef(workspace) } });
  } catch (error) {
    if (toFailure(error).code === 'no-builder') return null;
    throw error;
  }
}

/** Runs a local command with the environment for the workspace; resolves to its exit code. */
export async function env(
  context: Context,
  input: { workspace: string; command: string[]; forward: string[]; start: boolean },
): Promise<number> {
  const { workspace, start } = input;
  // Credentials may be cached, but the server is always asked whether there is a builder.
  const [credentials, builder] = await Promise.all([
    kubeCredentials(context, workspace),
    findBuilder(context, workspace),
  ]);
  // A bare port goes to any free one here: the local one may be taken by the same program.
  const specs = input.forward.map((spec) => (/^\d+$/.test(spec) ? `0:${spec}` : spec));
  const forwards =
    specs.length === 0
      ? null
      : await openPorts(context, { workspace, ports: specs, address: '127.0.0.1', start });
  const folder = await mkdtemp(join(tmpdir(), 'cde-env-'));
  let line: BuilderTunnel | null = null;
  try {
    const file = join(folder, 'kubeconfig');
    await writeFile(file, standaloneConfig(contextOf(context, workspace, credentials)), { mode: 0o600 });
    // Most commands build nothing, so the session is opened on demand.
    if (builder) line = await openBuilderTunnel(context, { workspace, builder, folder, start });
    const [program, ...args] = input.command;
    const running = runForeground(context, program!, args, {
      env: {
        ...context.env,
        KUBECONFIG: file,
        ...serverEnvironment(context.server()),
        CDE_WORKSPACE: workspace,
        CDE_NAMESPACE: credentials.namespace,
        ...(builder &&
          line &&
          (await builderEnvironment(context, { workspace, builder, url: line.url, folder }))),
        ...Object.fromEntries(
          (forwards?.ports ?? []).map(({ spec, local }) => [`CDE_PORT_${spec.remote}`, `127.0.0.1:${local}`]),
        ),
      },
    });
    // Without the session its ports are dead, but the command may no longer need them.
    forwards?.ended.catch((error: Error) => context.out.note(`The ports are gone: ${error.message}`));
    return (await running).code;
  } finally {
    line?.close();
    forwards?.close();
    await rm(folder, { recursive: true, force: true });
  }
}
