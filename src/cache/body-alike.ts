// What a route takes to be alike in JSON bodies, beyond how they are written: fields that do not count, fields that mean
// the same absent as with the backend's default, texts that may be spelt in several ways. All of it is said by the route
// table, field by field; nothing is taken to be alike by itself.
//
// Only the part of a key is made of what comes out. The origin gets the bytes as they came.

import { type JsonPointer, type JsonValue, type PlainJson, fromPlainJson, valueAt } from '../http/json.ts'

/** How two spellings of one text are made one. lower: of letters in any script. collapse-spaces: each run of white space
 *  is one space. nfc: composed characters (Unicode Normalization Form C). */
export const TEXT_FORMS = ['trim', 'collapse-spaces', 'nfc', 'lower'] as const

export type TextForm = (typeof TEXT_FORMS)[number]

export interface AlikeOptions {
  /** Members that do not count, and may be there under a field list. */
  readonly ignore?: readonly JsonPointer[] | undefined
  /** What the backend takes where a member is absent. An object that is absent itself is not made for it. */
  readonly defaults?: readonly (readonly [JsonPointer, PlainJson])[] | undefined
  readonly normalize?: readonly (readonly [JsonPointer, readonly TextForm[]])[] | undefined
}

/** The object that has, or would have, what a pointer points at, and by which name; null where there is no such object. */
function holderOf(root: JsonValue, pointer: JsonPointer): { holder: Map<string, JsonValue>; name: string } | null {
  const holder = valueAt(root, pointer.slice(0, -1))
  const name = pointer.at(-1)
  return holder instanceof Map && name !== undefined ? { holder, name } : null
}

/** Puts in what is absent and has a default. Changes the value. */
export function addDefaults(root: JsonValue, { defaults = [] }: AlikeOptions): void {
  for (const [pointer, value] of defaults) {
    const place = holderOf(root, pointer)
    if (place !== null && !place.holder.has(place.name)) place.holder.set(place.name, fromPlainJson(value))
  }
}

/** Takes out what does not count. Changes the value. */
export function dropIgnored(root: JsonValue, { ignore = [] }: AlikeOptions): void {
  for (const pointer of ignore) {
    const place = holderOf(root, pointer)
    place?.holder.delete(place.name)
  }
}

/** Gives texts the one spelling of all that are alike; what is not a text stays. Changes the value. */
export function normalizeTexts(root: JsonValue, { normalize = [] }: AlikeOptions): void {
  for (const [pointer, forms] of normalize) {
    const place = holderOf(root, pointer)
    const text = place?.holder.get(place.name)
    if (place !== null && typeof text === 'string') place.holder.set(place.name, normalText(text, new Set(forms)))
  }
}

/** In one order, whatever the list's: small letters may come decomposed, and white space be all that is left. */
function normalText(text: string, forms: ReadonlySet<TextForm>): string {
  let normal = text
  if (forms.has('lower')) normal = normal.toLowerCase()
  if (forms.has('nfc')) normal = normal.normalize('NFC')
  if (forms.has('collapse-spaces')) normal = normal.replaceAll(/\s+/g, ' ')
  return forms.has('trim') ? normal.trim() : normal
}
