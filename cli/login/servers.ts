import { changeConfig, namedServer, readConfig, serverUnknown } from '../config.ts';
import type { Context } from '../context.ts';
import { checkName } from './login.ts';

interface ServerRow {
  name: string;
  url: string;
  username: string;
  current: boolean;
}

export async function list(context: Context): Promise<number | undefined> {
  const { out, env } = context;
  const config = readConfig(env);
  const rows: ServerRow[] = Object.entries(config.servers).map(([url, login]) => ({
    name: login.alias,
    url,
    username: login.username,
    current: url === config.current,
  }));
  if (out.json) {
    out.printJson(rows);
    return undefined;
  }
  out.table<ServerRow>(
    [
      { title: 'NAME', cell: (row, c) => (row.current ? c.green(`${row.name} *`) : row.name) },
      { title: 'URL', cell: (row) => row.url },
      { title: 'USER', cell: (row) => row.username },
      { title: 'SSH', cell: (row) => (row.current ? 'WORKSPACE.cde' : `WORKSPACE.${row.name}.cde`) },
    ],
    rows,
    'You are not signed in to a server. Sign in: cde login https://your-server',
  );
  noteEnvironment(context);
  return undefined;
}

export async function use(context: Context, input: { server: string }): Promise<number | undefined> {
  const { out, env } = context;
  let chosen = { alias: '', url: '', username: '' };
  await changeConfig(env, (config) => {
    const url = namedServer(config, input.server);
    const login = config.servers[url];
    if (!login) throw serverUnknown(config, input.server);
    config.current = url;
    chosen = { alias: login.alias, url, username: login.username };
  });
  const { alias, url, username } = chosen;
  if (out.json) out.printJson({ name: alias, url, username, current: true });
  else out.print(`Commands go to ${alias} (${url}), as ${username}.`);
  noteEnvironment(context);
  return undefined;
}

export async function rename(
  context: Context,
  input: { server: string; name: string },
): Promise<number | undefined> {
  const { out, env } = context;
  const name = input.name.toLowerCase();
  let renamed = { url: '', username: '', current: false };
  await changeConfig(env, (config) => {
    const url = namedServer(config, input.server);
    const login = config.servers[url];
    if (!login) throw serverUnknown(config, input.server);
    checkName(config, url, name);
    login.alias = name;
    renamed = { url, username: login.username, current: config.current === url };
  });
  if (out.json) out.printJson({ name, ...renamed });
  else out.print(`${renamed.url} is named ${name}. In ssh: WORKSPACE.${name}.cde`);
  return undefined;
}

/** The environment goes before the current server: without a word a person would wonder why nothing changes. */
function noteEnvironment({ out, env }: Context): void {
  const variable = env.CDE_SERVER ? 'CDE_SERVER' : env.CDE_URL ? 'CDE_URL' : null;
  if (variable) out.note(`${variable} is set to ${env[variable]} and goes before the current server.`);
}
