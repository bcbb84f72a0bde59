// What a schema is once optional, default, transformation and union are taken off it: a mapping with known keys, one
// with free names, a list, a value, or an option that is refused for now. The messages and the reference page ask.

import { z } from 'zod'
import type { Path } from './path.ts'

/** Every shape that a value of this schema may have, in the order of the schema. A decoder (core/decode.ts) is one. */
export function shapesOf(schema: z.ZodType): z.ZodType[] {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodPrefault) return shapesOf(schema.unwrap() as z.ZodType)
  if (schema instanceof z.ZodUnion) return schema.options.flatMap((option) => shapesOf(option as z.ZodType))
  if (schema instanceof z.ZodPipe && !(schema.in instanceof z.ZodUnknown)) return shapesOf(schema.in as z.ZodType)
  return [schema]
}

/** True for an option of core/decode.ts `later()`. */
export const isLater = (schema: z.ZodType): boolean => shapesOf(schema).every((shape) => shape instanceof z.ZodNever)

/** The keys that may be written in the mapping at `path`, in the order of the schema. */
export function keysAt(schema: z.ZodType, path: Path): string[] {
  let shapes = shapesOf(schema)
  for (const step of path) shapes = shapes.flatMap((shape) => childShapes(shape, step))
  return shapes.flatMap((shape) =>
    shape instanceof z.ZodObject
      ? Object.keys(shape.shape).filter((key) => !isLater(shape.shape[key] as z.ZodType))
      : [],
  )
}

function childShapes(shape: z.ZodType, step: string | number): z.ZodType[] {
  if (shape instanceof z.ZodArray) return shapesOf(shape.element as z.ZodType)
  if (shape instanceof z.ZodRecord) return shapesOf(shape.valueType as z.ZodType)
  const child = shape instanceof z.ZodObject ? (shape.shape[step] as z.ZodType | undefined) : undefined
  return child === undefined ? [] : shapesOf(child)
}
