// Kernel templates shared by the instruction sets. The including file defines, in an unnamed namespace:
//   V (16 floats) with zero, set1, load, store, add, sub, mul, fma (a*b+c), fnma (c-a*b), max;
//   Sum (16 doubles) with clear, add(V), store_add(double*);
//   kMaxRows, kVecs; and for each element type E: load_e, store_e, multiply_step.
// Included once per instruction set, inside that namespace; no include guard on purpose.

constexpr float kA = float(kPointA), kB = float(kPointB);
constexpr float kA2 = kA * kA, kB2 = kB * kB, kA3 = kA2 * kA, kB3 = kB2 * kB;
constexpr float kSumAB = kA2 + kB2, kProdAB = kA2 * kB2;

#define ISOLINE_INLINE inline __attribute__((always_inline))

// Into the second-level cache only: the first has too few outstanding misses to spare.
ISOLINE_INLINE void prefetch(const void* p) {
  __builtin_prefetch(p, 0, 2);
}

// One-dimensional input transforms, by axis code (kernels.h), in two halves: half 0 gives the first points,
// half 1 the rest; no work is done twice.
template <int Axis>
constexpr int kHalves = Axis == 1 ? 1 : 2;
template <int Axis, int Half>
constexpr int kHalfPoints = Axis == -2 ? 3 - Half : (winograd_points_1d(Axis) + 1) / 2;

template <int Axis, int Half>
ISOLINE_INLINE void input_half(const V* d, V* v) {
  if constexpr (Axis == 1) {
    v[0] = d[0];
  } else if constexpr (Axis == -2) {
    if constexpr (Half == 0) {
      v[0] = sub(d[0], d[2]);
      v[1] = d[2];
      v[2] = sub(d[4], d[2]);
    } else {
      v[0] = d[1];
      v[1] = d[3];
    }
  } else if constexpr (Axis == 2) {
    v[0] = Half == 0 ? sub(d[2], d[0]) : sub(d[2], d[1]);
    v[1] = Half == 0 ? add(d[2], d[1]) : sub(d[3], d[1]);
  } else if constexpr (Half == 0) {
    const V even = fnma(set1(kB2), d[2], d[4]);
    const V odd = mul(set1(kA), fnma(set1(kB2), d[1], d[3]));
    v[0] = fma(set1(kProdAB), d[0], fnma(set1(kSumAB), d[2], d[4]));
    v[1] = add(even, odd);
    v[2] = sub(even, odd);
  } else {
    const V even = fnma(set1(kA2), d[2], d[4]);
    const V odd = mul(set1(kB), fnma(set1(kA2), d[1], d[3]));
    v[0] = add(even, odd);
    v[1] = sub(even, odd);
    v[2] = fma(set1(kProdAB), d[1], fnma(set1(kSumAB), d[3], d[5]));
  }
}
template <int Axis>
ISOLINE_INLINE void input_1d(const V* d, V* v) {
  input_half<Axis, 0>(d, v);
  if constexpr (Axis != 1) input_half<Axis, 1>(d, v + kHalfPoints<Axis, 0>);
}

// One-dimensional output transform from points m[]. Half h gives the tile's values h, h + 2.
template <int Axis>
constexpr int kHalfValues = Axis == 4 ? 2 : 1;
template <int Axis, int Half>
ISOLINE_INLINE void output_half(const V* m, V* y) {
  if constexpr (Axis == 1) {
    y[0] = m[0];
  } else if constexpr (Axis == -2) {
    y[0] = Half == 0 ? add(add(m[0], m[1]), m[3]) : add(add(m[1], m[2]), m[4]);
  } else if constexpr (Axis == 2) {
    y[0] = Half == 0 ? add(add(m[0], m[1]), m[2]) : add(sub(m[1], m[2]), m[3]);
  } else if constexpr (Half == 0) {
    const V a = add(m[1], m[2]), b = add(m[3], m[4]);
    y[0] = add(add(m[0], a), b);
    y[1] = fma(set1(kB2), b, mul(set1(kA2), a));
  } else {
    const V a = sub(m[1], m[2]), b = sub(m[3], m[4]);
    y[0] = fma(set1(kB), b, mul(set1(kA), a));
    y[1] = fma(set1(kB3), b, fma(set1(kA3), a, m[5]));
  }
}
template <int Axis>
ISOLINE_INLINE void output_1d(const V* m, V* y) {
  V even[2], odd[2];
  output_half<Axis, 0>(m, even);
  if constexpr (Axis != 1) output_half<Axis, 1>(m, odd);
  for (int i = 0; i < winograd_tile(Axis); ++i) y[i] = i % 2 ? odd[i / 2] : even[i / 2];
}

struct Activation {
  V scale, shift, slope;
  explicit Activation(const Source& s)
      : scale(s.scale ? load(s.scale) : set1(1)),
        shift(s.shift ? load(s.shift) : zero()),
        slope(set1(s.slope)) {}
  ISOLINE_INLINE V operator()(V x) const {
    const V y = fma(x, scale, shift);
    return max(y, mul(y, slope));
  }
};

// Along y and then z for one x: half of the y points at a time, so that everything stays in registers.
template <int AZ, int AY, int AX, int Half, class E>
ISOLINE_INLINE void input_zy(const float* tmp, E* v, int64_t point_stride) {
  constexpr int NZ = winograd_points_1d(AZ), NY = winograd_points_1d(AY), NX = winograd_points_1d(AX);
  constexpr int kPoints = kHalfPoints<AY, Half>, kFirst = Half ? kHalfPoints<AY, 0> : 0;
  V r[kPoints][NZ];
#pragma GCC unroll 8
  for (int z = 0; z < NZ; ++z) {
    V d[NY], p[kPoints];
#pragma GCC unroll 8
    for (int y = 0; y < NY; ++y) d[y] = load(tmp + (z * NY + y) * NX * kLanes);
    input_half<AY, Half>(d, p);
#pragma GCC unroll 8
    for (int i = 0; i < kPoints; ++i) r[i][z] = p[i];
  }
#pragma GCC unroll 8
  for (int i = 0; i < kPoints; ++i) {
    V p[NZ];
    input_1d<AZ>(r[i], p);
#pragma GCC unroll 8
    for (int z = 0; z < NZ; ++z) store_e(v + (z * NY + kFirst + i) * NX * point_stride, p[z]);
  }
}

template <int AZ, int AY, int AX, class E>
void winograd_input(const Source& in, const Grid& grid, int64_t t0, int64_t t1, void* v_out,
                    int64_t point_stride) {
  constexpr int NZ = winograd_points_1d(AZ), NY = winograd_points_1d(AY), NX = winograd_points_1d(AX);
  constexpr int kStepZ = winograd_tile(AZ) * winograd_stride(AZ),
                kStepY = winograd_tile(AY) * winograd_stride(AY),
                kStepX = winograd_tile(AX) * winograd_stride(AX);
  const int64_t sz = grid.size[0], sy = grid.size[1], sx = grid.size[2];
  const E* data = static_cast<const E*>(in.data);
  const Activation act(in);
  alignas(64) float tmp[NZ * NY * NX * kLanes];
  for (int64_t t = t0; t < t1; ++t) {
    const int64_t x0 = t % grid.tiles[2] * kStepX - winograd_lead(AX);
    const int64_t y0 = t / grid.tiles[2] % grid.tiles[1] * kStepY - winograd_lead(AY);
    const int64_t z0 = t / (grid.tiles[2] * grid.tiles[1]) * kStepZ - winograd_lead(AZ);
    const bool whole_x = x0 >= 0 && x0 + NX <= sx;
    for (int z = 0; z < NZ; ++z)
      for (int y = 0; y < NY; ++y) {
        float* row = tmp + (z * NY + y) * NX * kLanes;
        V d[NX], r[NX];
        if (z0 + z < 0 || z0 + z >= sz || y0 + y < 0 || y0 + y >= sy) {
#pragma GCC unroll 8
          for (int x = 0; x < NX; ++x) store(row + x * kLanes, zero());
          continue;
        }
        const E* p = data + (((z0 + z) * sy + y0 + y) * sx + x0) * kLanes;
        if (whole_x) {
          // Two tiles ahead: too many rows are walked at once for the hardware to see the pattern.
#pragma GCC unroll 8
          for (int x = 0; x < kStepX; x += int(64 / (kLanes * sizeof(E))))
            prefetch(p + (NX + kStepX + x) * kLanes);
#pragma GCC unroll 8
          for (int x = 0; x < NX; ++x) d[x] = act(load_e(p + x * kLanes));
        } else {
#pragma GCC unroll 8
          for (int x = 0; x < NX; ++x)
            d[x] = x0 + x >= 0 && x0 + x < sx ? act(load_e(p + x * kLanes)) : zero();
        }
        input_1d<AX>(d, r);
#pragma GCC unroll 8
        for (int x = 0; x < NX; ++x) store(row + x * kLanes, r[x]);
      }
    E* v = static_cast<E*>(v_out) + (t - t0) * kLanes;
    for (int x = 0; x < NX; ++x) {
      input_zy<AZ, AY, AX, 0>(tmp + x * kLanes, v + x * point_stride, point_stride);
      if constexpr (kHalves<AY> == 2)
        input_zy<AZ, AY, AX, 1>(tmp + x * kLanes, v + x * point_stride, point_stride);
    }
  }
}

template <bool Stream, class E>
ISOLINE_INLINE void store_maybe(E* p, V a) {
  if constexpr (Stream)
    stream_e(p, a);
  else
    store_e(p, a);
}

template <class E>
struct OutputTile {
  E* to;
  int64_t z_step, y_step;
  V bias, sum, square;
};

// Along y and then z for one x, half of the y values at a time; those inside of the grid are stored.
template <int AZ, int AY, int AX, int Half, bool Whole, bool Stream, class E>
ISOLINE_INLINE void output_yz(const float* tmp, OutputTile<E>& tile, int64_t ez, int64_t ey) {
  constexpr int NZ = winograd_points_1d(AZ), NY = winograd_points_1d(AY), kValues = kHalfValues<AY>;
  constexpr int TZ = winograd_tile(AZ), TX = winograd_tile(AX);
  V r[kValues][NZ];
#pragma GCC unroll 8
  for (int z = 0; z < NZ; ++z) {
    V p[NY], q[kValues];
#pragma GCC unroll 8
    for (int y = 0; y < NY; ++y) p[y] = load(tmp + (z * NY + y) * TX * kLanes);
    output_half<AY, Half>(p, q);
#pragma GCC unroll 8
    for (int i = 0; i < kValues; ++i) r[i][z] = q[i];
  }
#pragma GCC unroll 8
  for (int i = 0; i < kValues; ++i) {
    const int y = Half + 2 * i;
    if (!Whole && y >= ey) continue;
    V q[TZ];
    output_1d<AZ>(r[i], q);
#pragma GCC unroll 8
    for (int z = 0; z < TZ; ++z) {
      if (!Whole && z >= ez) continue;
      const V value = add(q[z], tile.bias);
      tile.sum = add(tile.sum, value);
      tile.square = fma(value, value, tile.square);
      store_maybe<Stream>(tile.to + z * tile.z_step + y * tile.y_step, value);
    }
  }
}

template <int AZ, int AY, int AX, bool Stream, class E>
void winograd_output_as(const float* m_in, int64_t point_stride, const Grid& grid, int64_t t0, int64_t t1,
                        const float* bias_in, void* out, double* stats) {
  constexpr int NZ = winograd_points_1d(AZ), NY = winograd_points_1d(AY), NX = winograd_points_1d(AX);
  constexpr int TZ = winograd_tile(AZ), TY = winograd_tile(AY), TX = winograd_tile(AX);
  const int64_t sz = grid.size[0], sy = grid.size[1], sx = grid.size[2];
  const V bias = bias_in ? load(bias_in) : zero();
  alignas(64) float tmp[NZ * NY * TX * kLanes];
  Sum sums, squares;
  sums.clear();
  squares.clear();
  for (int64_t t = t0; t < t1; ++t) {
    const int64_t x0 = t % grid.tiles[2] * TX;
    const int64_t y0 = t / grid.tiles[2] % grid.tiles[1] * TY;
    const int64_t z0 = t / (grid.tiles[2] * grid.tiles[1]) * TZ;
    const float* m = m_in + (t - t0) * kLanes;
    for (int i = 0; i < NZ * NY; ++i) {
      V p[NX], q[TX];
#pragma GCC unroll 8
      for (int x = 0; x < NX; ++x) p[x] = load(m + (i * NX + x) * point_stride);
      output_1d<AX>(p, q);
#pragma GCC unroll 8
      for (int x = 0; x < TX; ++x) store(tmp + (i * TX + x) * kLanes, q[x]);
    }
    OutputTile<E> tile;
    tile.to = static_cast<E*>(out) + ((z0 * sy + y0) * sx + x0) * kLanes;
    tile.z_step = sy * sx * kLanes;
    tile.y_step = sx * kLanes;
    tile.bias = bias;
    tile.sum = tile.square = zero();
    const int64_t ez = sz - z0, ey = sy - y0, ex = sx - x0 < TX ? sx - x0 : TX;
    if (ez >= TZ && ey >= TY) {
      for (int64_t x = 0; x < ex; ++x, tile.to += kLanes) {
        output_yz<AZ, AY, AX, 0, true, Stream>(tmp + x * kLanes, tile, TZ, TY);
        if constexpr (kHalves<AY> == 2)
          output_yz<AZ, AY, AX, 1, true, Stream>(tmp + x * kLanes, tile, TZ, TY);
      }
    } else {
      for (int64_t x = 0; x < ex; ++x, tile.to += kLanes) {
        output_yz<AZ, AY, AX, 0, false, Stream>(tmp + x * kLanes, tile, ez, ey);
        if constexpr (kHalves<AY> == 2)
          output_yz<AZ, AY, AX, 1, false, Stream>(tmp + x * kLanes, tile, ez, ey);
      }
    }
    sums.add(tile.sum);
    squares.add(tile.square);
  }
  if (stats) {
    sums.store_add(stats);
    squares.store_add(stats + kLanes);
  }
}

template <int AZ, int AY, int AX, class E>
void winograd_output(const float* m, int64_t point_stride, const Grid& grid, int64_t t0, int64_t t1,
                     const float* bias, void* out, bool stream, double* stats) {
  if (stream && kCanStream<E>) {
    winograd_output_as<AZ, AY, AX, kCanStream<E>, E>(m, point_stride, grid, t0, t1, bias, out, stats);
    _mm_sfence();
  } else {
    winograd_output_as<AZ, AY, AX, false, E>(m, point_stride, grid, t0, t1, bias, out, stats);
  }
}

// The heart: Rows x Vecs accumulators, one broadcast of `a` per row and step. A constant row distance
// (Stride != 0) turns all addresses into one register plus a displacement.
template <class E, int Rows, int Vecs, int Stride>
void micro(const E* __restrict a, int64_t a_row, const int64_t* offsets, int64_t offset_count,
           int64_t k_per_offset, const E* __restrict b, float* __restrict c, int64_t c_row, int64_t c_vec,
           bool accumulate) {
  const int64_t stride = Stride ? Stride : a_row;
  V acc[Rows][Vecs];
  if (accumulate) {
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
      for (int v = 0; v < Vecs; ++v) acc[i][v] = load(c + i * c_row + v * c_vec);
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
      for (int v = 0; v < Vecs; ++v) acc[i][v] = zero();
  }
  constexpr int kStep = ElementTraits<E>::kPerStep;  // values of k a step consumes
  for (int64_t o = 0; o < offset_count; ++o) {
    const E* p = a + offsets[o];
#pragma GCC unroll 4
    for (int64_t k = 0; k < k_per_offset; k += kStep) {
      typename ElementTraits<E>::Operand w[Vecs];
#pragma GCC unroll 2
      for (int v = 0; v < Vecs; ++v) w[v] = load_weights(b + v * kLanes * kStep);
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i) {
        const auto x = broadcast(p + i * stride + k);
#pragma GCC unroll 2
        for (int v = 0; v < Vecs; ++v) acc[i][v] = multiply_step(x, w[v], acc[i][v]);
      }
      b += Vecs * kLanes * kStep;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < Vecs; ++v) store(c + i * c_row + v * c_vec, acc[i][v]);
}

template <class E, int Vecs, int Stride>
ISOLINE_INLINE void micro_rows(int64_t rows, const E* a, int64_t a_row, const int64_t* offsets, int64_t n,
                               int64_t k, const E* b, float* c, int64_t c_row, int64_t c_vec,
                               bool accumulate) {
#define ISOLINE_ROWS(R)                                                                   \
  case R:                                                                                 \
    if constexpr (R <= max_rows<Vecs>())                                                  \
      micro<E, R, Vecs, Stride>(a, a_row, offsets, n, k, b, c, c_row, c_vec, accumulate); \
    break;
  switch (rows) {
    ISOLINE_ROWS(1)
    ISOLINE_ROWS(2)
    ISOLINE_ROWS(3)
    ISOLINE_ROWS(4)
    ISOLINE_ROWS(5)
    ISOLINE_ROWS(6)
    ISOLINE_ROWS(7)
    ISOLINE_ROWS(8)
    ISOLINE_ROWS(9) ISOLINE_ROWS(10) ISOLINE_ROWS(11) ISOLINE_ROWS(12) ISOLINE_ROWS(13) ISOLINE_ROWS(14)
  }
#undef ISOLINE_ROWS
}

template <class E, int Vecs>
ISOLINE_INLINE void multiply_vecs(const E* a, int64_t a_row, const int64_t* offsets, int64_t n, int64_t k,
                                  const E* b, float* c, int64_t c_row, int64_t c_vec, int64_t rows,
                                  bool accumulate) {
  // Chunks of nearly equal height: 32 rows are 11 + 11 + 10, not 14 + 14 + 4.
  const int64_t chunks = (rows + max_rows<Vecs>() - 1) / max_rows<Vecs>();
  for (int64_t i = 0; i < chunks; ++i) {
    const int64_t r0 = rows * i / chunks, count = rows * (i + 1) / chunks - r0;
    const E* ai = a + r0 * a_row;
    float* ci = c + r0 * c_row;
    if (a_row == kLanes)
      micro_rows<E, Vecs, kLanes>(count, ai, a_row, offsets, n, k, b, ci, c_row, c_vec, accumulate);
    else if (a_row == 2 * kLanes)
      micro_rows<E, Vecs, 2 * kLanes>(count, ai, a_row, offsets, n, k, b, ci, c_row, c_vec, accumulate);
    else
      micro_rows<E, Vecs, 0>(count, ai, a_row, offsets, n, k, b, ci, c_row, c_vec, accumulate);
  }
}

template <class E>
void multiply(const void* a, int64_t a_row, const int64_t* offsets, int64_t offset_count,
              int64_t k_per_offset, const void* b, float* c, int64_t c_row, int64_t c_vec, int64_t rows,
              int vecs, bool accumulate) {
  const E* ae = static_cast<const E*>(a);
  const E* be = static_cast<const E*>(b);
  if (vecs == 2)
    multiply_vecs<E, 2>(ae, a_row, offsets, offset_count, k_per_offset, be, c, c_row, c_vec, rows,
                        accumulate);
  else
    multiply_vecs<E, 1>(ae, a_row, offsets, offset_count, k_per_offset, be, c, c_row, c_vec, rows,
                        accumulate);
}

template <class E>
void load_patch(const Source& in, const Grid& grid, const Patch& patch, void* to_void) {
  const Activation act(in);
  const E* data = static_cast<const E*>(in.data);
  E* to = static_cast<E*>(to_void);
  const int64_t nx = patch.extent[2];
  int64_t lead = -patch.begin[2], end = grid.size[2] - patch.begin[2];  // [lead, end) lies inside
  lead = lead < 0 ? 0 : lead > nx ? nx : lead;
  end = end < lead ? lead : end > nx ? nx : end;
  for (int64_t z = patch.begin[0]; z < patch.begin[0] + patch.extent[0]; ++z)
    for (int64_t y = patch.begin[1]; y < patch.begin[1] + patch.extent[1]; ++y, to += nx * kLanes) {
      if (z < 0 || z >= grid.size[0] || y < 0 || y >= grid.size[1]) {
        for (int64_t x = 0; x < nx; ++x) store_e(to + x * kLanes, zero());
        continue;
      }
      const E* p = data + ((z * grid.size[1] + y) * grid.size[2] + patch.begin[2]) * kLanes;
      for (int64_t x = 0; x < lead; ++x) store_e(to + x * kLanes, zero());
      for (int64_t x = lead; x < end; ++x) store_e(to + x * kLanes, act(load_e(p + x * kLanes)));
      for (int64_t x = end; x < nx; ++x) store_e(to + x * kLanes, zero());
    }
}

template <bool Stream, class E>
void store_plane_as(const float* acc, int64_t acc_row, int64_t ny, int64_t nx, const float* bias_in,
                    void* out, int64_t out_row, int64_t out_voxel, double* stats) {
  const V bias = bias_in ? load(bias_in) : zero();
  Sum sums, squares;
  sums.clear();
  squares.clear();
  for (int64_t y = 0; y < ny; ++y) {
    const float* from = acc + y * acc_row;
    E* to = static_cast<E*>(out) + y * out_row;
    for (int64_t x0 = 0; x0 < nx; x0 += 64) {  // float32 sums stay short
      V sum = zero(), square = zero();
      const int64_t x1 = x0 + 64 < nx ? x0 + 64 : nx;
      for (int64_t x = x0; x < x1; ++x) {
        const V r = add(load(from + x * kLanes), bias);
        sum = add(sum, r);
        square = fma(r, r, square);
        store_maybe<Stream>(to + x * out_voxel, r);
      }
      sums.add(sum);
      squares.add(square);
    }
  }
  if (stats) {
    sums.store_add(stats);
    squares.store_add(stats + kLanes);
  }
}

template <class E>
void store_plane(const float* acc, int64_t acc_row, int64_t ny, int64_t nx, const float* bias, void* out,
                 int64_t out_row, int64_t out_voxel, bool stream, double* stats) {
  if (stream && kCanStream<E>) {
    store_plane_as<kCanStream<E>, E>(acc, acc_row, ny, nx, bias, out, out_row, out_voxel, stats);
    _mm_sfence();
  } else {
    store_plane_as<false, E>(acc, acc_row, ny, nx, bias, out, out_row, out_voxel, stats);
  }
}

template <class E>
void load_voxels(const Source& in, int64_t first, int64_t count, float* to) {
  const Activation act(in);
  const E* p = static_cast<const E*>(in.data) + first * kLanes;
  for (int64_t i = 0; i < count; ++i) store(to + i * kLanes, act(load_e(p + i * kLanes)));
}

template <class E>
void store_voxels(const float* from, int64_t count, void* to_void) {
  E* to = static_cast<E*>(to_void);
  for (int64_t i = 0; i < count; ++i) store_e(to + i * kLanes, load(from + i * kLanes));
}

template <class E>
constexpr KernelTable make_table(const char* name) {
  KernelTable t{};
  t.name = name;
  t.element_bytes = int(sizeof(E));
  t.winograd_input[kWinograd444] = winograd_input<4, 4, 4, E>;
  t.winograd_input[kWinograd244] = winograd_input<2, 4, 4, E>;
  t.winograd_input[kWinograd222] = winograd_input<2, 2, 2, E>;
  t.winograd_input[kWinograd144] = winograd_input<1, 4, 4, E>;
  t.winograd_input[kWinograd122] = winograd_input<1, 2, 2, E>;
  t.winograd_input[kWinogradStride222] = winograd_input<-2, -2, -2, E>;
  t.winograd_input[kWinogradStride122] = winograd_input<1, -2, -2, E>;
  t.winograd_output[kWinograd444] = winograd_output<4, 4, 4, E>;
  t.winograd_output[kWinograd244] = winograd_output<2, 4, 4, E>;
  t.winograd_output[kWinograd222] = winograd_output<2, 2, 2, E>;
  t.winograd_output[kWinograd144] = winograd_output<1, 4, 4, E>;
  t.winograd_output[kWinograd122] = winograd_output<1, 2, 2, E>;
  t.winograd_output[kWinogradStride222] = winograd_output<-2, -2, -2, E>;
  t.winograd_output[kWinogradStride122] = winograd_output<1, -2, -2, E>;
  t.multiply = multiply<E>;
  t.multiply_f32 = multiply<float>;
  t.load_patch = load_patch<E>;
  t.store_plane = store_plane<E>;
  t.load_voxels = load_voxels<E>;
  t.store_voxels = store_voxels<E>;
  return t;
}
