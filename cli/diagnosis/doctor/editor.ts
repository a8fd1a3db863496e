import { existsSync, readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Check } from '@cde/api/checks.ts';
import type { Finding } from '@cde/api/findings.ts';
import type { Context } from '../../command/context.ts';
import { isOnPath, readText } from './files.ts';
import { makeFinding } from './finding.ts';

interface Editor {
  name: string;
  program: string;
  /** In the home. */
  extensions: string;
  /** The name of its folder of settings. */
  settings: string;
}

/** Editors that connect by Remote-SSH. */
const editors: readonly Editor[] = [
  { name: 'VS Code', program: 'code', extensions: '.vscode', settings: 'Code' },
  { name: 'Cursor', program: 'cursor', extensions: '.cursor', settings: 'Cursor' },
  { name: 'Windsurf', program: 'windsurf', extensions: '.windsurf', settings: 'Windsurf' },
];

/** Whether the editors of this machine would use the configuration of ssh that has the workspaces. */
export function editorCheck(context: Context): Check {
  return {
    name: 'editor',
    dependsOn: ['ssh'],
    run: () => editors.flatMap((editor) => checkEditor(editor, context.env)),
  };
}

function checkEditor(editor: Editor, env: NodeJS.ProcessEnv): Finding[] {
  const home = homedir();
  const folder = join(home, editor.extensions, 'extensions');
  const isInstalled = isOnPath(editor.program, env) || existsSync(folder);
  if (!isInstalled) return [];
  const names = existsSync(folder) ? readdirSync(folder) : [];
  if (!names.some((name) => /(^|[.-])(open-)?remote-ssh-\d/.test(name)))
    return [
      makeFinding('info', 'editor-extension-missing', `${editor.name} has no extension for Remote-SSH.`, {
        hint: `To open workspaces in it, install "Remote - SSH": ${editor.program} --install-extension ms-vscode-remote.remote-ssh`,
      }),
    ];
  const base =
    process.platform === 'darwin'
      ? join(home, 'Library', 'Application Support')
      : env.XDG_CONFIG_HOME || join(home, '.config');
  return settingFindings(editor, readText(join(base, editor.settings, 'User', 'settings.json')) ?? '');
}

/** Settings may contain comments, so they are searched and not parsed. */
function settingFindings({ name }: Editor, settings: string): Finding[] {
  const settingOf = (key: string) =>
    new RegExp(`^\\s*"${key.replaceAll('.', '\\.')}"\\s*:\\s*"([^"\\n]*)"`, 'm').exec(settings)?.[1];
  const other = settingOf('remote.SSH.configFile');
  const own = join(homedir(), '.ssh', 'config');
  const path = other && resolve(other.replace(/^~(?=\/)/, homedir()));
  const ssh = settingOf('remote.SSH.path');
  return [
    ...(path && path !== own
      ? [
          makeFinding(
            'warning',
            'editor-other-config',
            `${name} reads another configuration of ssh: ${other}`,
            {
              hint: `Add the workspaces to it: cde config-ssh --ssh-config ${other}   (or remove the setting remote.SSH.configFile)`,
            },
          ),
        ]
      : []),
    ...(ssh?.startsWith('/') && !existsSync(ssh)
      ? [
          makeFinding(
            'error',
            'editor-ssh-missing',
            `${name} is set to use an ssh that does not exist: ${ssh}`,
            {
              hint: 'Remove the setting remote.SSH.path.',
            },
          ),
        ]
      : []),
  ];
}
