// What is long or secret goes into a key as a digest: keys are listed on the admin port and kept for long.

import { hash } from 'node:crypto'

/** SHA-256 of a list of texts, in base64url; null is an absent one. Each text carries its length before it, so that no two
 *  lists run together into the same one. The texts are well-formed Unicode. */
export const digestOf = (texts: readonly (string | null)[]): string =>
  hash('sha256', texts.map((text) => (text === null ? '-' : `${text.length}:${text}`)).join(''), 'base64url')
