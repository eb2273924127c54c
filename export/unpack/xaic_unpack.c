/* See xaic_unpack.h. The format is described in the Python decoder, unpack_xaic.py, which gives the same bytes. */
#include "xaic_unpack.h"

#include <string.h>

enum {
  HEADER = 26,   /* "XAIC", version, LZMA properties, size, CRC-32 of the file, LZMA bytes, LZMA content, bytes for models */
  VERSION = 4,
  INT8 = 0,      /* kinds of regions */
  INT4 = 1,
  PLANES = 2,
  INT2 = 3,
  LOOKUP = 16,   /* from here on: 16 times the largest magnitude plus how many weights a byte holds */
  PRECISION = 22,
  INCREMENT = 32,
  CONTEXTS = 192 /* more than any scheme has */
};

static uint32_t read32(const uint8_t *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t crc32_of(uint32_t crc, const uint8_t *p, size_t count) {
  static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
                                     0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                     0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
  crc = ~crc;
  while (count--) {
    crc ^= *p++;
    crc = crc >> 4 ^ table[crc & 15];
    crc = crc >> 4 ^ table[crc & 15];
  }
  return ~crc;
}

/* --- Work memory ------------------------------------------------------------------------------------------------------ */

typedef struct {
  uint8_t *next;
  size_t left;
} arena;

/* Returns `count` bytes, aligned to 4; NULL where there are not as many. */
static void *take(arena *a, uint64_t count) {
  size_t gap = (size_t)(0 - (uintptr_t)a->next) & 3;
  void *found;
  if (gap > a->left || count > a->left - gap) return NULL;
  found = a->next + gap;
  a->next += gap + (size_t)count;
  a->left -= gap + (size_t)count;
  return found;
}

/* --- Output ----------------------------------------------------------------------------------------------------------- */

typedef struct {
  xaic_write write;
  void *user;
  uint32_t size, done, crc;
  unsigned held;
  xaic_status status;
  uint8_t piece[XAIC_PIECE];
} output;

static void flush(output *o) {
  o->crc = crc32_of(o->crc, o->piece, o->held);
  if (o->status == XAIC_OK && o->write != NULL && o->held > 0 && o->write(o->user, o->piece, o->held) != 0)
    o->status = XAIC_NOT_WRITTEN;
  o->held = 0;
}

static void emit(output *o, uint8_t byte) {
  if (o->done == o->size) {
    if (o->status == XAIC_OK) o->status = XAIC_DAMAGED;
    return;
  }
  o->done++;
  o->piece[o->held++] = byte;
  if (o->held == XAIC_PIECE) flush(o);
}

/* --- LZMA: the raw stream of LZMA1 with an end mark, after the specification of its author ------------------------------ */

enum {
  IS_MATCH = 0,
  IS_REP = IS_MATCH + 192,
  IS_REP_G0 = IS_REP + 12,
  IS_REP_G1 = IS_REP_G0 + 12,
  IS_REP_G2 = IS_REP_G1 + 12,
  IS_REP0_LONG = IS_REP_G2 + 12,
  POS_SLOT = IS_REP0_LONG + 192,
  POS_SPECIAL = POS_SLOT + 256,
  ALIGN = POS_SPECIAL + 115,
  LENGTH = ALIGN + 16, /* choice, choice of the second, 16 low trees of 8, 16 middle trees of 8, one high tree of 256 */
  REP_LENGTH = LENGTH + 514,
  LITERAL = REP_LENGTH + 514
};

typedef struct {
  const uint8_t *in, *end;
  uint32_t range, code;
  int short_of_input;
  uint16_t *probs;
} lzma;

static size_t lzma_probs(unsigned lc, unsigned lp) { return LITERAL + ((size_t)0x300 << (lc + lp)); }

static void lzma_normalize(lzma *z) {
  if (z->range < (uint32_t)1 << 24) {
    z->range <<= 8;
    z->code <<= 8;
    if (z->in < z->end)
      z->code |= *z->in++;
    else
      z->short_of_input = 1;
  }
}

static unsigned lzma_bit(lzma *z, uint16_t *prob) {
  uint32_t bound;
  unsigned bit;
  lzma_normalize(z);
  bound = (z->range >> 11) * *prob;
  if (z->code < bound) {
    z->range = bound;
    *prob = (uint16_t)(*prob + ((2048 - *prob) >> 5));
    bit = 0;
  } else {
    z->range -= bound;
    z->code -= bound;
    *prob = (uint16_t)(*prob - (*prob >> 5));
    bit = 1;
  }
  return bit;
}

static unsigned lzma_tree(lzma *z, uint16_t *probs, unsigned bits) {
  unsigned m = 1, i;
  for (i = 0; i < bits; i++) m = m << 1 | lzma_bit(z, probs + m);
  return m - (1u << bits);
}

static unsigned lzma_reverse_tree(lzma *z, uint16_t *probs, unsigned bits) {
  unsigned m = 1, i, value = 0;
  for (i = 0; i < bits; i++) {
    unsigned bit = lzma_bit(z, probs + m);
    m = m << 1 | bit;
    value |= bit << i;
  }
  return value;
}

static unsigned lzma_length(lzma *z, uint16_t *probs, unsigned pos_state) {
  if (!lzma_bit(z, probs)) return lzma_tree(z, probs + 2 + 8 * pos_state, 3);
  if (!lzma_bit(z, probs + 1)) return 8 + lzma_tree(z, probs + 130 + 8 * pos_state, 3);
  return 16 + lzma_tree(z, probs + 258, 8);
}

static uint32_t lzma_distance(lzma *z, unsigned length) {
  unsigned slot = lzma_tree(z, z->probs + POS_SLOT + 64 * (length < 4 ? length : 3), 6), bits, i;
  uint32_t distance;
  if (slot < 4) return slot;
  bits = (slot >> 1) - 1;
  distance = (uint32_t)(2 | (slot & 1)) << bits;
  if (slot < 14) return distance + lzma_reverse_tree(z, z->probs + POS_SPECIAL + distance - slot, bits);
  for (i = bits - 4; i > 0; i--) {
    uint32_t bit;
    lzma_normalize(z);
    z->range >>= 1;
    bit = z->code >= z->range;
    if (bit) z->code -= z->range;
    distance += bit << (i + 3);
  }
  return distance + lzma_reverse_tree(z, z->probs + ALIGN, 4);
}

static unsigned lzma_literal(lzma *z, uint16_t *probs, int has_match, unsigned match) {
  unsigned symbol = 1;
  if (has_match) {
    do {
      unsigned match_bit = match >> 7 & 1, bit;
      match <<= 1;
      bit = lzma_bit(z, probs + ((1 + match_bit) << 8) + symbol);
      symbol = symbol << 1 | bit;
      if (match_bit != bit) break;
    } while (symbol < 256);
  }
  while (symbol < 256) symbol = symbol << 1 | lzma_bit(z, probs + symbol);
  return symbol & 255;
}

/* Decodes into exactly `size` bytes; returns whether that was the stream's content. */
static int lzma_decode(lzma *z, unsigned lc, unsigned lp, unsigned pb, uint8_t *out, size_t size) {
  uint32_t rep0 = 0, rep1 = 0, rep2 = 0, rep3 = 0;
  size_t done = 0, i;
  unsigned state = 0;
  if (z->end - z->in < 5 || *z->in != 0) return 0;
  z->code = (uint32_t)z->in[1] << 24 | (uint32_t)z->in[2] << 16 | (uint32_t)z->in[3] << 8 | z->in[4];
  z->in += 5;
  z->range = 0xffffffff;
  z->short_of_input = 0;
  for (i = 0; i < lzma_probs(lc, lp); i++) z->probs[i] = 1024;
  while (!z->short_of_input) {
    unsigned pos_state = (unsigned)done & ((1u << pb) - 1), length;
    if (!lzma_bit(z, z->probs + IS_MATCH + 16 * state + pos_state)) {
      unsigned before = done > 0 ? out[done - 1] : 0;
      size_t context = (((done & ((1u << lp) - 1)) << lc) + (before >> (8 - lc)));
      unsigned match = state >= 7 && rep0 < done ? out[done - rep0 - 1] : 0;
      unsigned symbol = lzma_literal(z, z->probs + LITERAL + 0x300 * context, state >= 7, match);
      if (done == size) return 0;
      out[done++] = (uint8_t)symbol;
      state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
      continue;
    }
    if (lzma_bit(z, z->probs + IS_REP + state)) {
      if (!lzma_bit(z, z->probs + IS_REP_G0 + state)) {
        if (!lzma_bit(z, z->probs + IS_REP0_LONG + 16 * state + pos_state)) {
          state = state < 7 ? 9 : 11;
          if (done == size || rep0 >= done) return 0;
          out[done] = out[done - rep0 - 1];
          done++;
          continue;
        }
      } else {
        uint32_t distance = rep1;
        if (lzma_bit(z, z->probs + IS_REP_G1 + state)) {
          distance = rep2;
          if (lzma_bit(z, z->probs + IS_REP_G2 + state)) {
            distance = rep3;
            rep3 = rep2;
          }
          rep2 = rep1;
        }
        rep1 = rep0;
        rep0 = distance;
      }
      length = lzma_length(z, z->probs + REP_LENGTH, pos_state);
      state = state < 7 ? 8 : 11;
    } else {
      rep3 = rep2;
      rep2 = rep1;
      rep1 = rep0;
      length = lzma_length(z, z->probs + LENGTH, pos_state);
      state = state < 7 ? 7 : 10;
      rep0 = lzma_distance(z, length);
      if (rep0 == 0xffffffff) { /* the end mark */
        lzma_normalize(z);
        return done == size && !z->short_of_input && z->code == 0;
      }
    }
    length += 2;
    if (rep0 >= done || length > size - done) return 0;
    for (; length > 0; length--, done++) out[done] = out[done - rep0 - 1];
  }
  return 0;
}

/* --- Range decoder of weights (Martin 1979): 48 bits of state, 16 bits at a time ---------------------------------------- */

typedef struct {
  const uint8_t *in, *end;
  uint64_t range, code;
} decoder;

static unsigned next_word(decoder *d) {
  unsigned word = 0;
  if (d->end - d->in >= 2) {
    word = (unsigned)d->in[0] << 8 | d->in[1];
    d->in += 2;
  }
  return word;
}

/* Returns the next symbol under `levels` + 1 cumulative frequencies, which end at 2^PRECISION. */
static unsigned next_symbol(decoder *d, const uint32_t *cumulative, unsigned levels) {
  uint64_t step = d->range >> PRECISION, place = d->code / step;
  unsigned low = 0, high = levels; /* cumulative[low] <= place < cumulative[high] */
  if (place > ((uint32_t)1 << PRECISION) - 1) place = ((uint32_t)1 << PRECISION) - 1;
  while (high - low > 1) {
    unsigned middle = (low + high) / 2;
    if (cumulative[middle] <= place)
      low = middle;
    else
      high = middle;
  }
  d->code -= step * cumulative[low];
  d->range = step * (cumulative[low + 1] - cumulative[low]);
  while (d->range < (uint64_t)1 << 32) {
    d->range <<= 16;
    d->code = d->code << 16 | next_word(d);
  }
  return low;
}

/* Adaptive frequencies of `levels` levels lie in 2 * levels + 3 words: symbols until the next refresh, symbols seen, counts,
 * cumulative frequencies. This takes the counts over into the cumulative frequencies that are coded with. */
static void refresh(uint32_t *words, unsigned levels) {
  const uint32_t *counts = words + 2;
  uint32_t *cumulative = words + 2 + levels, room = ((uint32_t)1 << PRECISION) - levels, below = 0;
  uint64_t total = 0;
  unsigned i;
  for (i = 0; i < levels; i++) total += counts[i];
  cumulative[0] = 0;
  for (i = 0; i < levels; i++) {
    below += 1 + (uint32_t)((uint64_t)counts[i] * room / total);
    cumulative[i + 1] = below;
  }
  cumulative[levels] = (uint32_t)1 << PRECISION;
  words[0] = words[1] / 8 < 124 ? 4 + words[1] / 8 : 128;
  words[1] += words[0];
}

/* Begins with a two-sided geometric distribution of this average, in 256ths. */
static void begin(uint32_t *words, unsigned limit, uint32_t average) {
  unsigned levels = 2 * limit + 1, i;
  uint32_t *counts = words + 2, room = INCREMENT * (limit + 1) * (limit > 7 ? 4 : 1);
  uint64_t total;
  counts[limit] = (uint32_t)1 << 20;
  total = counts[limit];
  for (i = 1; i <= limit; i++) {
    counts[limit + i] = counts[limit - i] = (uint32_t)((uint64_t)counts[limit + i - 1] * average / (average + 256));
    total += 2 * (uint64_t)counts[limit + i];
  }
  for (i = 0; i < levels; i++) counts[i] = 1 + (uint32_t)((uint64_t)room * counts[i] / total);
  words[1] = 0;
  refresh(words, levels);
}

/* --- Regions ---------------------------------------------------------------------------------------------------------- */

typedef struct {
  uint32_t gap, kind, outer, inner, positions, shift, limit, coding;
  uint32_t count;
} region;

typedef struct {
  const uint8_t *next, *end;
} reader;

static int read_number(reader *r, uint32_t *number) {
  uint64_t value = 0;
  unsigned shift = 0;
  for (;;) {
    if (r->next == r->end) return 0;
    value |= (uint64_t)(*r->next & 127) << shift;
    shift += 7;
    if (*r->next++ < 128) break;
    if (shift == 35) return 0;
  }
  *number = (uint32_t)value;
  return value <= 0xffffffff;
}

/* Reads a region and checks what it says; `most` is how many values a container of this size may hold. */
static int read_region(reader *r, uint64_t most, region *one) {
  uint64_t count;
  if (!(read_number(r, &one->gap) && read_number(r, &one->kind) && read_number(r, &one->outer) &&
        read_number(r, &one->inner) && read_number(r, &one->positions) && read_number(r, &one->shift) &&
        read_number(r, &one->limit) && read_number(r, &one->coding)))
    return 0;
  count = (uint64_t)one->outer * one->inner;
  if (count == 0 || count > most || one->positions == 0 || one->positions > most) return 0;
  count *= one->positions;
  if (count > most || count >= (uint32_t)1 << 26) return 0;
  one->count = (uint32_t)count;
  if (one->kind == PLANES) return 1;
  if (one->kind > INT2 && (one->kind < LOOKUP || one->kind > 255 || one->kind % LOOKUP == 0)) return 0;
  return one->shift <= 7 && one->limit <= 127 && (one->coding & 7) < 5 && one->coding >> 3 <= one->limit << 8;
}

/* Brings weights into bytes: the state between two weights of a region. */
typedef struct {
  uint32_t kind, value, held;
} packer;

static int pack(packer *p, output *o, int weight) {
  if (p->kind == INT8) {
    emit(o, (uint8_t)(weight & 255));
  } else if (p->kind < LOOKUP) {
    const uint32_t bits = p->kind == INT2 ? 2 : 4;
    p->value |= ((uint32_t)weight & ((1u << bits) - 1)) << bits * p->held;
    if (++p->held == 8 / bits) {
      emit(o, (uint8_t)p->value);
      p->held = p->value = 0;
    }
  } else {
    int largest = (int)(p->kind / LOOKUP), digit = weight + largest;
    if (digit < 0 || digit > 2 * largest) return 0;
    p->value = p->value * (uint32_t)(2 * largest + 1) + (uint32_t)digit;
    if (p->value > 255) return 0;
    if (++p->held == p->kind % LOOKUP) {
      emit(o, (uint8_t)p->value);
      p->held = p->value = 0;
    }
  }
  return 1;
}

/* Returns value + floor((target - value) / 2^shift). */
static uint32_t approach(uint32_t value, uint32_t target, unsigned shift) {
  if (target >= value) return value + ((target - value) >> shift);
  return value - ((value - target + (1u << shift) - 1) >> shift);
}

static unsigned sign_class(int weight) { return weight > 0 ? 2 : weight < 0 ? 0 : 1; }

static xaic_status unpack_weights(const region *one, decoder *d, arena memory, output *o) {
  const uint32_t scheme = one->coding & 7; /* sign, sign-above, size, size-sign, sizes-sign */
  const int uses_sign = scheme != 2, uses_above = scheme == 1, uses_size = scheme >= 2, uses_column = scheme == 4;
  const uint32_t channel = one->inner * one->positions;
  const uint32_t row = one->count == channel ? one->positions : channel;
  const unsigned levels = 2 * one->limit + 1;
  uint8_t *const origin = memory.next;
  uint32_t *models = take(&memory, 4 * CONTEXTS); /* where the frequencies of each context begin, behind `origin`; 0: nowhere */
  int8_t *weights = take(&memory, channel);
  int8_t *earlier = uses_above ? take(&memory, row) : NULL;
  uint16_t *columns = uses_column ? take(&memory, 2 * (uint64_t)row) : NULL;
  uint32_t average = one->coding >> 3, place = 0, start, i, k;
  int before = 0;
  packer p = {0, 0, 0};
  p.kind = one->kind;
  if (models == NULL || weights == NULL || (uses_above && earlier == NULL) || (uses_column && columns == NULL))
    return XAIC_WORK_TOO_SMALL;
  memset(models, 0, 4 * CONTEXTS);
  if (uses_above) memset(earlier, 0, row);
  for (i = 0; uses_column && i < row; i++) columns[i] = (uint16_t)average;
  for (start = 0; start < one->count && o->status == XAIC_OK; start += channel) {
    for (i = 0; i < channel; i++) {
      uint32_t size = average, context = 0, symbol, magnitude, *words;
      if (uses_column) size = (size + columns[place]) >> 1;
      if (uses_size) { /* four classes an octave */
        unsigned octave = 0;
        while (size >> octave) octave++;
        context = 4 * octave + (octave > 2 ? size >> (octave - 3) & 3 : 0);
      }
      if (uses_sign) context = 3 * context + sign_class(before);
      if (uses_above) context = 3 * context + sign_class(earlier[place]);
      if (context >= CONTEXTS) return XAIC_DAMAGED;
      if (models[context] == 0) {
        words = take(&memory, 4 * (2 * (uint64_t)levels + 3));
        if (words == NULL) return XAIC_WORK_TOO_SMALL;
        models[context] = (uint32_t)((uint8_t *)words - origin);
        begin(words, (unsigned)one->limit, size);
      }
      words = (uint32_t *)(void *)(origin + models[context]);
      symbol = next_symbol(d, words + 2 + levels, levels);
      words[2 + symbol] += INCREMENT;
      if (--words[0] == 0) refresh(words, levels);
      before = (int)symbol - (int)one->limit;
      magnitude = (uint32_t)(before < 0 ? -before : before) << 8;
      average = approach(average, magnitude, 6);
      if (uses_column) columns[place] = (uint16_t)approach(columns[place], magnitude, 3);
      if (uses_above) earlier[place] = (int8_t)before;
      place = place + 1 < row ? place + 1 : 0;
      weights[i] = (int8_t)before;
    }
    for (k = 0; k < one->positions; k++)
      for (i = 0; i < one->inner; i++)
        if (!pack(&p, o, weights[i * one->positions + k] * (1 << one->shift))) return XAIC_DAMAGED;
  }
  if (p.held > 0) emit(o, (uint8_t)p.value);
  return o->status;
}

/* --- Containers ------------------------------------------------------------------------------------------------------- */

typedef struct {
  unsigned lc, lp, pb;
  uint32_t file_crc, packed, content, models;
  uint64_t most;
} header;

static xaic_status read_header(const uint8_t *container, size_t length, header *h, xaic_info *info) {
  uint64_t needed, probs;
  unsigned properties;
  if (container == NULL || length < HEADER + 4 || memcmp(container, "XAIC", 4) != 0) return XAIC_NOT_A_CONTAINER;
  if (container[4] != VERSION) return XAIC_OTHER_VERSION;
  properties = container[5];
  h->lc = properties % 9;
  h->lp = properties / 9 % 5;
  h->pb = properties / 45;
  info->file_size = read32(container + 6);
  h->file_crc = read32(container + 10);
  h->packed = read32(container + 14);
  h->content = read32(container + 18);
  h->models = read32(container + 22);
  h->most = 65536 + 256 * (uint64_t)length;
  if (h->lc + h->lp > 4 || h->pb > 4 || info->file_size > h->most || h->packed > length - HEADER - 4 ||
      h->content > 2 * (uint64_t)info->file_size + 65536)
    return XAIC_DAMAGED;
  probs = 2 * (uint64_t)lzma_probs(h->lc, h->lp);
  needed = 8 + (uint64_t)h->content + (h->models > probs ? h->models : probs);
  if (needed > 0xffffffff || needed > SIZE_MAX) return XAIC_DAMAGED;
  info->work_size = (uint32_t)needed;
  return XAIC_OK;
}

xaic_status xaic_inspect(const uint8_t *container, size_t length, xaic_info *info) {
  header h;
  return read_header(container, length, &h, info);
}

xaic_status xaic_unpack(const uint8_t *container, size_t length, void *work, size_t work_size, xaic_write write, void *user) {
  header h;
  xaic_info info;
  arena memory, rest_of_memory;
  lzma z;
  decoder d;
  output o;
  region one;
  reader table, rest;
  uint8_t *content;
  const uint8_t *planes, *after_table;
  uint32_t regions, number, i, k;
  uint64_t values = 0, in_planes = 0;
  xaic_status status = read_header(container, length, &h, &info);
  if (status != XAIC_OK) return status;
  if (crc32_of(0, container, length - 4) != read32(container + length - 4)) return XAIC_DAMAGED;

  memory.next = work;
  memory.left = work == NULL ? 0 : work_size;
  content = take(&memory, h.content);
  rest_of_memory = memory;
  z.probs = take(&rest_of_memory, 2 * lzma_probs(h.lc, h.lp));
  if (content == NULL || z.probs == NULL) return XAIC_WORK_TOO_SMALL;
  z.in = container + HEADER;
  z.end = z.in + h.packed;
  if (!lzma_decode(&z, h.lc, h.lp, h.pb, content, h.content)) return XAIC_DAMAGED;

  /* The table is read twice: what is behind it is known only at its end. */
  table.next = content;
  table.end = content + h.content;
  if (!read_number(&table, &regions)) return XAIC_DAMAGED;
  after_table = table.next;
  for (number = 0; number < regions; number++) {
    if (!read_region(&table, h.most, &one)) return XAIC_DAMAGED;
    values += one.count;
    if (one.kind == PLANES) in_planes += one.count;
    if (values > h.most) return XAIC_DAMAGED;
  }
  planes = table.next;
  if (in_planes > (uint64_t)(table.end - planes)) return XAIC_DAMAGED;
  rest.next = planes + in_planes;
  rest.end = table.end;
  table.next = after_table;

  memset(&o, 0, sizeof o);
  o.write = write;
  o.user = user;
  o.size = info.file_size;
  d.in = container + HEADER + h.packed;
  d.end = container + length - 4;
  d.range = (uint64_t)1 << 48;
  d.code = 0;
  for (i = 0; i < 3; i++) d.code = d.code << 16 | next_word(&d);
  for (number = 0; number < regions && o.status == XAIC_OK; number++) {
    if (!read_region(&table, h.most, &one) || one.gap > (uint64_t)(rest.end - rest.next)) return XAIC_DAMAGED;
    for (i = 0; i < one.gap; i++) emit(&o, *rest.next++);
    if (one.kind == PLANES) {
      for (i = 0; i < one.inner; i++)
        for (k = i; k < one.count; k += one.inner) emit(&o, planes[k]);
      planes += one.count;
    } else {
      status = unpack_weights(&one, &d, memory, &o);
      if (status != XAIC_OK) return status;
    }
  }
  while (rest.next < rest.end && o.status == XAIC_OK) emit(&o, *rest.next++);
  flush(&o);
  if (o.status == XAIC_OK && (o.done != o.size || o.crc != h.file_crc)) return XAIC_DAMAGED;
  return o.status;
}
