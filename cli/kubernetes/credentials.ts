import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { KubeCredentials } from '@cde/api/clusters.ts';
import type { Context } from '../command/context.ts';
import { configDir } from '../config/config.ts';
import { createKubeCredentials } from '../connection/endpoints.ts';
import { pathRef } from '../workspaces/reference.ts';

/** A token that expires soon is useless for a command that takes a while. */
const leftMs = 5 * 60_000;

const cacheFile = (context: Context, workspace: string): string =>
  join(
    configDir(context.env),
    'kube',
    `${createHash('sha256').update(`${context.server().url} ${workspace}`).digest('hex').slice(0, 24)}.json`,
  );

/** Credentials for a workspace's namespace, cached until they expire. */
export async function kubeCredentials(
  context: Context,
  workspace: string,
  { fresh = false }: { fresh?: boolean } = {},
): Promise<KubeCredentials> {
  const file = cacheFile(context, workspace);
  if (!fresh) {
    try {
      const cached = JSON.parse(await readFile(file, 'utf8')) as KubeCredentials;
      if (Date.parse(cached.expiresAt) - Date.now() > leftMs) return cached;
    } catch {
      // Missing or unreadable: request new ones.
    }
  }
  const client = await context.client();
  const credentials = await client.call(createKubeCredentials, {
    params: { workspace: pathRef(workspace) },
    body: {},
  });
  await mkdir(join(file, '..'), { recursive: true, mode: 0o700 });
  const draft = `${file}.${process.pid}`;
  await writeFile(draft, JSON.stringify(credentials), { mode: 0o600 });
  await rename(draft, file);
  return credentials;
}
