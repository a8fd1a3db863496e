import { lstat, mkdir, readFile, realpath, rename, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import type { KubeCredentials } from '@cde/api/clusters.ts';
import type { Context } from '../command/context.ts';
import { line, type Result, result } from '../command/result.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure } from '../failure/failure.ts';
import { kubeCredentials } from './credentials.ts';
import { type KubeContext, merge, removeContext, standaloneConfig } from './merge.ts';

/** The context of a workspace, whose credentials come from this `cde` and server. */
export function contextOf(
  context: Context,
  workspace: string,
  credentials: KubeCredentials,
  name = credentials.namespace,
): KubeContext {
  requireNames(credentials);
  return {
    name,
    namespace: credentials.namespace,
    cluster: {
      server: credentials.server,
      ...(credentials.certificateAuthority && {
        'certificate-authority-data': Buffer.from(credentials.certificateAuthority).toString('base64'),
      }),
    },
    user: {
      exec: {
        apiVersion: 'client.authentication.k8s.io/v1',
        command: process.execPath,
        args: [resolve(process.argv[1]!), 'kube-token', workspace, '--server', context.server().url],
        env: null,
        interactiveMode: 'Never',
        provideClusterInfo: false,
      },
    },
  };
}

/** Validated, because they come from the server and go into a file that other programs trust. */
function requireNames({ namespace, server }: KubeCredentials): void {
  const isNamespace = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(namespace);
  const isAddress = /^https?:$/.test(URL.parse(server)?.protocol ?? '');
  if (isNamespace && isAddress) return;
  throw new Failure('not-a-cde-server', 'The server gives a namespace or an address that is none.', {
    exitCode: exitCodes.unreachable,
    detail: JSON.stringify({ namespace, server }).slice(0, 300),
    hint: 'Nothing was written. Check the address of the server.',
  });
}

function fileOf(env: NodeJS.ProcessEnv, given: string | undefined): string {
  const first = (env.KUBECONFIG ?? '').split(delimiter).find((path) => path !== '');
  return resolve(given ?? first ?? join(env.HOME ?? homedir(), '.kube', 'config'));
}

/** Replaces the file atomically and keeps its permissions; a symlink is followed. */
async function replace(file: string, text: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  const target = await realpath(file).catch(() => file);
  const mode = (await lstat(target).catch(() => null))?.mode ?? 0o600;
  const draft = `${target}.cde-${process.pid}`;
  await writeFile(draft, text, { mode: mode & 0o777 });
  await rename(draft, target);
}

export async function kubeconfig(
  context: Context,
  input: {
    workspace: string;
    kubeconfig: string | undefined;
    context: string | undefined;
    switch: boolean;
    print: boolean;
    remove: boolean;
  },
): Promise<Result | undefined> {
  const { out } = context;
  const file = fileOf(context.env, input.kubeconfig);
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '';
    throw new Failure('kubeconfig-unreadable', `${file} cannot be read: ${error.message}.`);
  });
  if (input.remove) {
    const name = input.context ?? (await kubeCredentials(context, input.workspace)).namespace;
    const without = removeContext(text, name, context.server().url);
    if (without !== null) await replace(file, without);
    return result({ context: name, file, removed: without !== null }, () => [
      line(
        without === null
          ? `${file} has no context ${name} that cde created for this server.`
          : `${name} is removed from ${file}.`,
      ),
    ]);
  }
  const credentials = await kubeCredentials(context, input.workspace, { fresh: true });
  const made = contextOf(context, input.workspace, credentials, input.context);
  if (credentials.internal)
    out.note(
      `kubectl will use ${credentials.server}, an address inside the cluster. If you cannot reach it, ask an administrator to set a public endpoint: cde cluster set ${credentials.cluster} --public-endpoint URL`,
    );
  if (input.print) {
    process.stdout.write(standaloneConfig(made));
    return undefined;
  }
  await replace(file, merge(text, made, input.switch));
  const data = { context: made.name, file, namespace: made.namespace, cluster: credentials.cluster };
  return result(data, () => [
    line(
      `${made.name} is in ${file}${input.switch ? ' and is the current context. Try: kubectl get pods' : `. Try: kubectl --context ${made.name} get pods`}`,
    ),
  ]);
}
