import { type AgentOptions, Agent as HttpsAgent } from 'node:https';

/** The environment variable that names the HTTPS proxy, in lower or upper case. */
function proxyVariable(): { name: string; value: string } | undefined {
  for (const name of ['https_proxy', 'HTTPS_PROXY']) {
    const value = process.env[name];
    if (value) return { name, value };
  }
  return undefined;
}

/** People write `proxy:3128` and mean http. */
const asUrl = (value: string) => (/^[a-z][a-z0-9+.-]*:\/\//i.test(value) ? value : `http://${value}`);

/**
 * An agent for HTTPS requests and WebSockets over TLS that connects through the CONNECT proxy in `HTTPS_PROXY`
 * (`http://[user:password@]host:port`), except to hosts in `NO_PROXY`. Returns undefined when no proxy is set. Plain
 * HTTP never uses the proxy, because proxies do not carry its WebSockets. Throws when the variable is not such a URL.
 */
export function proxyAgent(options: AgentOptions = {}): HttpsAgent | undefined {
  const variable = proxyVariable();
  if (!variable) return undefined;
  const url = asUrl(variable.value);
  const parsed = URL.canParse(url) ? new URL(url) : null;
  if (!parsed || !/^https?:$/.test(parsed.protocol) || !parsed.hostname)
    throw new Error(`the variable ${variable.name} is not the URL of an HTTP proxy (http://host:port)`);
  const noProxy = process.env.no_proxy ?? process.env.NO_PROXY;
  return new HttpsAgent({
    ...options,
    proxyEnv: { https_proxy: url, ...(noProxy && { no_proxy: noProxy }) },
  });
}

/** The configured HTTPS proxy (HOST:PORT, without its password) and the variable that names it; null if none. */
export function configuredProxy(): { variable: string; place: string } | null {
  const variable = proxyVariable();
  if (!variable) return null;
  const url = asUrl(variable.value);
  return { variable: variable.name, place: URL.canParse(url) ? new URL(url).host : 'not a URL' };
}

/** A suffix for error messages about `url` that points out a proxy in between. */
export function proxyHint(url: string): string {
  const proxy = configuredProxy();
  return proxy && /^(https|wss):/.test(url) ? ` (${proxy.variable} names the proxy ${proxy.place})` : '';
}

/** Makes this process's `fetch` use the same proxy. For long-running programs, because it loads Node's `fetch`. */
export function useProxyForFetch(): void {
  const variable = proxyVariable();
  if (!variable || !proxyAgent()) return;
  const noProxy = process.env.no_proxy ?? process.env.NO_PROXY;
  // An `import` would load all of `fetch` into agents.
  process
    .getBuiltinModule('node:http')
    .setGlobalProxyFromEnv({ https_proxy: asUrl(variable.value), ...(noProxy && { no_proxy: noProxy }) });
}
