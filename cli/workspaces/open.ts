import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Client } from '@cde/api/client.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import type { Context } from '../command/context.ts';
import { line, note, type Result, result } from '../command/result.ts';
import { getWorkspace, listPorts } from '../connection/endpoints.ts';
import { exitCodes } from '../failure/exit-codes.ts';
import { Failure, usage } from '../failure/failure.ts';
import { openBrowser } from '../login/login.ts';
import { readPort } from '../ports/ports.ts';
import { hostOn, pathRef } from './reference.ts';

interface OpenInput {
  workspace: string | undefined;
  in: string | undefined;
  port: string | undefined;
  folder: string | undefined;
  print: boolean;
}

/** Opens a page or an editor, or prints its address where nothing can be opened. */
export async function open(context: Context, input: OpenInput): Promise<Result> {
  const { out } = context;
  const port = input.port === undefined ? undefined : readPort(input.port);
  if (port !== undefined && (input.in !== undefined || input.folder !== undefined))
    throw usage('--port opens a page of its own.', 'Leave --in and --folder out.');
  if (input.folder !== undefined && (input.in ?? 'dashboard') === 'dashboard')
    throw usage('--folder is for an editor.', 'Add --in vscode or --in jetbrains.');
  if (input.workspace === undefined && (port !== undefined || (input.in ?? 'dashboard') !== 'dashboard'))
    throw usage('Which workspace?', 'Name it: cde open WORKSPACE');
  const url = await urlOf(context, input, port);
  const isOpened = !input.print && !out.json && out.terminal && openBrowser(context.env, url);
  return result({ url }, () => [isOpened ? note(`Opening ${url}`) : line(url)]);
}

async function urlOf(context: Context, input: OpenInput, port: number | undefined): Promise<string> {
  const client = await context.client();
  if (input.workspace === undefined) return `${client.url}/`;
  if (port !== undefined) return portUrl(client, input.workspace, port);
  const params = { workspace: pathRef(input.workspace) };
  const workspace = await client.call(getWorkspace, { params });
  const { owner, name } = workspace;
  switch (input.in) {
    case 'vscode':
      return `vscode://vscode-remote/ssh-remote+${sshHostFor(context, input.workspace)}${folderOf(input, workspace).split('/').map(encodeURIComponent).join('/')}`;
    case 'jetbrains': {
      const query = new URLSearchParams({
        host: sshHostFor(context, input.workspace),
        port: '22',
        user: owner,
        type: 'ssh',
        deploy: 'false',
        projectPath: folderOf(input, workspace),
      });
      return `jetbrains-gateway://connect#${query}`;
    }
    default:
      return `${client.url}/workspaces/${owner}/${name}`;
  }
}

/** The folder for an editor: absolute, or in the home. */
function folderOf({ folder }: OpenInput, { owner, home: path }: Workspace): string {
  // Servers of earlier releases do not say it.
  const home = path ?? `/home/${owner}`;
  if (folder === undefined) return home;
  return folder.startsWith('/') ? folder : `${home}/${folder.replace(/^~\//, '')}`;
}

/** An editor's own ssh reaches the workspace by what config-ssh has written. */
function sshHostFor(context: Context, reference: string): string {
  if (!existsSync(join(homedir(), '.ssh', 'cde', 'config')))
    context.out.note(
      'Editors connect by your ssh configuration. If it does not have the hosts yet: cde config-ssh',
    );
  return hostOn(context.server(), reference);
}

async function portUrl(client: Client, reference: string, port: number): Promise<string> {
  const { items } = await client.call(listPorts, { params: { workspace: pathRef(reference) } });
  const url = items.find((each) => each.port === port)?.url;
  if (url) return url;
  throw new Failure('port-not-shared', `Port ${port} of ${reference} is not shared.`, {
    exitCode: exitCodes.notFound,
    hint: `Share it with yourself: cde share ${reference} ${port}\nOr without the web: cde port-forward ${reference} ${port}`,
  });
}
