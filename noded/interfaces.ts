import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Profile } from './profiles.ts';

const wildcard = /^(net\.ipv[46]\.(?:conf|neigh))\.\*\.([A-Za-z0-9_-]+)$/;
/** Not interfaces: `default` is for those to come, and `all` for every one. */
const notInterfaces = ['all', 'default'];

/** The family of sysctls that each network interface has: `net.ipv4.conf`; null for any other sysctl. */
export const interfaceFamily = (sysctl: string): string | null =>
  /^(net\.ipv[46]\.(?:conf|neigh))\./.exec(sysctl)?.[1] ?? null;

/** The sysctl with `*` for the name of an interface: each pod brings one, so they are too many to tell apart in metrics. */
export const hideInterface = (sysctl: string): string =>
  sysctl.replace(/^(net\.ipv[46]\.(?:conf|neigh))\.(?!all\.|default\.)[^.]+\./, '$1.*.');

/** The interfaces of a family, as parts of a sysctl's name: dots are written as slashes there (`eth0/100`). */
export function listInterfaces(root: string, family: string): string[] {
  try {
    return readdirSync(join(root, ...family.split('.')))
      .filter((name) => !notInterfaces.includes(name))
      .map((name) => name.replaceAll('.', '/'));
  } catch {
    return [];
  }
}

/** Tells whether interfaces appeared or disappeared since the last call, and at the first call. Adding one is no write that inotify would report. */
export function makeInterfaceWatch(root: string): {
  /** The sysctls that matter; without any of an interface, nothing is read. */
  follow(sysctls: readonly string[]): void;
  hasChanged(): boolean;
} {
  let families: string[] = [];
  let seen = '';
  const look = () => families.map((family) => listInterfaces(root, family).join(' ')).join('\n');
  return {
    follow(sysctls) {
      const next = [...new Set(sysctls.flatMap((sysctl) => interfaceFamily(sysctl) ?? []))].sort();
      if (next.join() === families.join()) return;
      families = next;
      seen = '';
    },
    // What is seen here is covered by the pass that follows: an interface that appears during that pass is noticed by the next call.
    hasChanged() {
      const now = look();
      const changed = now !== seen;
      seen = now;
      return changed;
    },
  };
}

/** Replaces `net.ipv4.conf.*.NAME` by the sysctls of the interfaces that exist. What a profile names itself wins. */
export function expandInterfaces(
  profiles: readonly Profile[],
  interfacesOf: (family: string) => readonly string[],
): Profile[] {
  return profiles.map((profile) => {
    if (![...profile.sysctls.keys()].some((sysctl) => wildcard.test(sysctl))) return profile;
    const sysctls = new Map(profile.sysctls);
    const optional = new Set<string>();
    for (const [sysctl, wanted] of profile.sysctls) {
      const [, family, name] = wildcard.exec(sysctl) ?? [];
      if (!family) continue;
      sysctls.delete(sysctl);
      for (const one of interfacesOf(family)) {
        const expanded = `${family}.${one}.${name}`;
        if (sysctls.has(expanded)) continue;
        sysctls.set(expanded, wanted);
        optional.add(expanded);
      }
    }
    return { ...profile, sysctls, optional };
  });
}
