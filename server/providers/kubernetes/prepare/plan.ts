/** What the init container `prepare` is told, as JSON in CDE_PREPARE. */
export interface Plan {
  owner: string;
  /** Null: the image's own user. */
  uid: number | null;
  /** Where the volume is mounted as a whole: `home` is in it, and `.cde` for us. */
  volume: string;
  /** Where the home will be mounted. */
  home: string;
  /** The folder that is made: what becomes /etc, or its passwd and group alone. */
  etc: string;
  /** As root all of /etc can be copied. Then programs may change it, as useradd and packages with users do. */
  wholeEtc: boolean;
}
