import type { Context } from '../command/context.ts';
import { type Block, line, note, type Result, result, table } from '../command/result.ts';
import { changeConfig, namedServer, readConfig, serverUnknown } from '../config/config.ts';
import { checkName } from './login.ts';

interface ServerRow {
  name: string;
  url: string;
  username: string;
  current: boolean;
}

export async function list(context: Context): Promise<Result> {
  const { env } = context;
  const config = readConfig(env);
  const rows: ServerRow[] = Object.entries(config.servers).map(([url, login]) => ({
    name: login.alias,
    url,
    username: login.username,
    current: url === config.current,
  }));
  return result(rows, () => [
    table<ServerRow>(
      [
        { title: 'NAME', cell: (row, c) => (row.current ? c.green(`${row.name} *`) : row.name) },
        { title: 'URL', cell: (row) => row.url },
        { title: 'USER', cell: (row) => row.username },
        { title: 'SSH', cell: (row) => (row.current ? 'WORKSPACE.cde' : `WORKSPACE.${row.name}.cde`) },
      ],
      rows,
      'You are not signed in to a server. Sign in: cde login https://your-server',
    ),
    environmentNote(context),
  ]);
}

export async function use(context: Context, input: { server: string }): Promise<Result> {
  const { env } = context;
  let chosen = { alias: '', url: '', username: '' };
  await changeConfig(env, (config) => {
    const url = namedServer(config, input.server);
    const login = config.servers[url];
    if (!login) throw serverUnknown(config, input.server);
    config.current = url;
    chosen = { alias: login.alias, url, username: login.username };
  });
  const { alias, url, username } = chosen;
  return result({ name: alias, url, username, current: true }, () => [
    line(`Commands now use ${alias} (${url}) as ${username}.`),
    environmentNote(context),
  ]);
}

export async function rename(context: Context, input: { server: string; name: string }): Promise<Result> {
  const { env } = context;
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
  return result({ name, ...renamed }, () => [
    line(`${renamed.url} is named ${name}. In ssh: WORKSPACE.${name}.cde`),
  ]);
}

/** Explains why choosing a server has no effect. */
function environmentNote({ env }: Context): Block | null {
  const variable = env.CDE_SERVER ? 'CDE_SERVER' : env.CDE_URL ? 'CDE_URL' : null;
  return variable ? note(`${variable} is set to ${env[variable]} and overrides the current server.`) : null;
}
