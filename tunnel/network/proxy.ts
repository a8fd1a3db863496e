import { type AgentOptions, Agent as HttpsAgent } from 'node:https';

/** The system's variable for a proxy in the way of HTTPS, in either case; undefined when there is none. */
function proxyVariable(): { name: string; value: string } | undefined {
  for (const name of ['https_proxy', 'HTTPS_PROXY']) {
    const value = process.env[name];
    if (value) return { name, value };
  }
  return undefined;
}

/** As people write it: `proxy:3128` is meant as http. */
const asUrl = (value: string) => (/^[a-z][a-z0-9+.-]*:\/\//i.test(value) ? value : `http://${value}`);

/**
 * An agent for HTTPS requests, and WebSockets over TLS, which goes through the CONNECT proxy that `HTTPS_PROXY` names
 * (`http://[user:password@]host:port`), except to what `NO_PROXY` names. Undefined when no proxy is set. Plain
 * HTTP always goes directly: a proxy does not carry its WebSockets. Throws an Error in words when the variable is
 * no such URL.
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

/** The proxy that HTTPS goes through, HOST:PORT without its password, and the variable that names it; null without. */
export function configuredProxy(): { variable: string; place: string } | null {
  const variable = proxyVariable();
  if (!variable) return null;
  const url = asUrl(variable.value);
  return { variable: variable.name, place: URL.canParse(url) ? new URL(url).host : 'not a URL' };
}

/** What to add to the words of a failed request to `url`, so that a proxy in the way is not overlooked. */
export function proxyHint(url: string): string {
  const proxy = configuredProxy();
  return proxy && /^(https|wss):/.test(url) ? ` (${proxy.variable} names the proxy ${proxy.place})` : '';
}

/** Lets `fetch` of this process follow the same variables: for programs that run long, as it loads Node's `fetch`. */
export function useProxyForFetch(): void {
  const variable = proxyVariable();
  if (!variable || !proxyAgent()) return;
  const noProxy = process.env.no_proxy ?? process.env.NO_PROXY;
  // Not by `import`, which would load all of `fetch` into agents.
  process
    .getBuiltinModule('node:http')
    .setGlobalProxyFromEnv({ https_proxy: asUrl(variable.value), ...(noProxy && { no_proxy: noProxy }) });
}
