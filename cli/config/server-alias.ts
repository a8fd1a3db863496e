/** An alias is a label of a host name, because it is part of `web.ALIAS.cde`. */
export const aliasPattern = /^(?!.*--)[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/;

/** Labels that do not identify a server. */
const generic = new Set(['cde', 'www', 'dev']);

/** Derives an alias from a server's host: `https://cde.work.example.com` becomes `work`. */
function aliasFromUrl(url: string): string {
  const { hostname } = new URL(url);
  if (hostname === 'localhost' || /^[\d.]+$/.test(hostname) || hostname.startsWith('['))
    return /^(localhost|127\..*|\[::1\])$/.test(hostname) ? 'local' : 'server';
  const labels = hostname.split('.');
  const label = labels.find((each, at) => at < labels.length - 1 && !generic.has(each)) ?? labels[0]!;
  return aliasPattern.test(label) ? label : 'server';
}

/** The first free one of `work`, `work-2`, `work-3`… */
export function freeAlias(config: { servers: Record<string, { alias: string }> }, url: string): string {
  const taken = new Set(Object.values(config.servers).map(({ alias }) => alias));
  const base = aliasFromUrl(url).slice(0, 28);
  if (!taken.has(base)) return base;
  for (let n = 2; ; n++) if (!taken.has(`${base}-${n}`)) return `${base}-${n}`;
}
