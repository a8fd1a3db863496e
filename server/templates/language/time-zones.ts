import { nearest } from './suggest.ts';

const names = [...Intl.supportedValuesOf('timeZone'), 'UTC'];

/** What to write in place of a name that is no time zone: one with the same city, or one that is spelled nearly the same. */
export function timeZoneHint(name: string): string | undefined {
  const cityOf = (zone: string) => zone.split('/').at(-1)!.toLowerCase().replaceAll(/[ _-]/g, '');
  const sameCity = names.find((zone) => cityOf(zone) === cityOf(name));
  const near = sameCity ?? nearest(name, names);
  return near === undefined ? undefined : `did you mean "${near}"?`;
}
