import type { Action } from '@cde/api/actions.ts';

type Of<K extends Action['kind']> = Extract<Action, { kind: K }>;

const commands: { [K in Action['kind']]: (action: Of<K>) => [what: string, command: string] } = {
  'sign-in': () => ['Sign in', 'cde login'],
  'list-workspaces': () => ['List your workspaces', 'cde list'],
  'show-workspace': ({ workspace }) => ['Show the workspace', `cde show ${workspace}`],
  'start-workspace': ({ workspace }) => ['Start the workspace', `cde start ${workspace}`],
  'restart-workspace': ({ workspace }) => ['Restart the workspace', `cde restart ${workspace}`],
  'update-workspace': ({ workspace }) => ['Update the workspace', `cde update ${workspace}`],
  'open-terminal': ({ workspace }) => ['Open a terminal', `cde ssh ${workspace}`],
  'read-build-log': ({ workspace }) => ['Follow the build log', `cde logs ${workspace} --follow`],
  'cancel-build': ({ workspace }) => ['Cancel the build', `cde cancel ${workspace}`],
  'list-ports': ({ workspace }) => ['List its ports', `cde ports ${workspace}`],
  'forward-port': ({ workspace, port }) => ['Forward the port', `cde port-forward ${workspace} ${port}`],
  'list-homes': () => ['List homes', 'cde home list'],
  'list-templates': () => ['List templates', 'cde template list'],
  'show-template': ({ template }) => ['Show the template', `cde template show ${template}`],
  'validate-template': () => ['Check a template', 'cde template validate FOLDER'],
  'publish-template': () => ['Publish a template', 'cde template push FOLDER'],
  'list-clusters': () => ['List clusters', 'cde cluster list'],
  'show-cluster': ({ cluster }) => ['Show the cluster', `cde cluster show ${cluster}`],
  'configure-cluster': ({ cluster }) => ['Change the cluster', `cde cluster set ${cluster}`],
  'add-cluster': () => ['Add a cluster', 'cde cluster add NAME'],
  'print-cluster-role': () => ['Print the role', 'cde cluster role'],
  'list-orphans': () => ['List orphans', 'cde cluster orphans'],
  'clean-orphans': () => ['Delete orphans', 'cde cluster orphans --clean'],
  'list-nodes': () => ['List nodes', 'cde node list'],
  'list-satellites': () => ['List satellites', 'cde satellite list'],
  'add-satellite': () => ['Add a satellite', 'cde satellite add NAME'],
  'allow-satellite-web': ({ satellite }) => ['Let it serve browsers', `cde satellite web ${satellite}`],
  'list-users': () => ['List users', 'cde user list'],
  'list-tokens': () => ['List your tokens', 'cde token list'],
  'create-token': () => ['Create a token', 'cde token create'],
};

/** The command that does an action; undefined for a kind that only a newer `cde` knows. */
export function actionLine(action: Action): string | undefined {
  if (!Object.hasOwn(commands, action.kind)) return undefined;
  const describe = commands[action.kind] as (action: Action) => [what: string, command: string];
  const [what, command] = describe(action);
  return `${what}: ${command}`;
}

/** The lines below an error that say what to do: its hint, then a command for each action. */
export function adviceLines({
  hint,
  actions,
}: {
  hint?: string | undefined;
  actions?: readonly Action[] | undefined;
}): string[] {
  const lines = (actions ?? []).map(actionLine).filter((line) => line !== undefined);
  return [...(hint?.split('\n') ?? []), ...lines];
}
