"""The codes of features in IBSI's reference manual (arXiv:1612.07003v11), which is DICOM's coding scheme IBSI."""

from __future__ import annotations

import re
from typing import Final


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


#: By IBSI's tag, without its aggregation, the code of the feature.
_CODES: Final = _pairs(
    """
    morph_volume:RNU0 morph_vol_approx:YEKZ morph_area_mesh:C0JK morph_av:2PR5 morph_comp_1:SKGS morph_comp_2:BQWJ
    morph_sph_dispr:KRCK morph_sphericity:QCFX morph_asphericity:25C7 morph_com:KLMA morph_diam:L0JK
    morph_pca_maj_axis:TDIC morph_pca_min_axis:P9VJ morph_pca_least_axis:7J51 morph_pca_elongation:Q3CK
    morph_pca_flatness:N17B morph_vol_dens_aabb:PBX1 morph_area_dens_aabb:R59B morph_vol_dens_aee:6BDE
    morph_area_dens_aee:RDD2 morph_vol_dens_conv_hull:R3ER morph_area_dens_conv_hull:7T7F morph_integ_int:99N0
    morph_moran_i:N365 morph_geary_c:NPT7 loc_peak_loc:VJGA loc_peak_glob:0F91
    stat_mean:Q4LE stat_var:ECT3 stat_skew:KE2A stat_kurt:IPH6 stat_median:Y12H stat_min:1GSF stat_p10:QG58
    stat_p90:8DWT stat_max:84IY stat_iqr:SALO stat_range:2OJQ stat_mad:4FUA stat_rmad:1128 stat_medad:N72L
    stat_cov:7TET stat_qcod:9S40 stat_energy:N8CA stat_rms:5ZWQ
    ih_mean:X6K6 ih_var:CH89 ih_skew:88K1 ih_kurt:C3I7 ih_median:WIFQ ih_min:1PR8 ih_p10:GPMT ih_p90:OZ0C ih_max:3NCY
    ih_mode:AMMC ih_iqr:WR0O ih_range:5Z3W ih_mad:D2ZX ih_rmad:WRZB ih_medad:4RNL ih_cov:CWYJ ih_qcod:SLWD
    ih_entropy:TLU2 ih_uniformity:BJ5W ih_max_grad:12CE ih_max_grad_g:8E6O ih_min_grad:VQB3 ih_min_grad_g:RHQZ
    cm_joint_max:GYBY cm_joint_avg:60VM cm_joint_var:UR99 cm_joint_entr:TU9B cm_diff_avg:TF7R cm_diff_var:D3YU
    cm_diff_entr:NTRS cm_sum_avg:ZGXS cm_sum_var:OEEB cm_sum_entr:P6QZ cm_energy:8ZQL cm_contrast:ACUI
    cm_dissimilarity:8S9J cm_inv_diff:IB1Z cm_inv_diff_norm:NDRX cm_inv_diff_mom:WF0Z cm_inv_diff_mom_norm:1QCO
    cm_inv_var:E8JP cm_corr:NI2N cm_auto_corr:QWB0 cm_clust_tend:DG8W cm_clust_shade:7NFM cm_clust_prom:AE86
    cm_info_corr1:R8DG cm_info_corr2:JN9H
    rlm_sre:22OV rlm_lre:W4KF rlm_lgre:V3SW rlm_hgre:G3QZ rlm_srlge:HTZT rlm_srhge:GD3A rlm_lrlge:IVPO rlm_lrhge:3KUM
    rlm_glnu:R5YN rlm_glnu_norm:OVBL rlm_rlnu:W92Y rlm_rlnu_norm:IC23 rlm_r_perc:9ZK5 rlm_gl_var:8CE5 rlm_rl_var:SXLW
    rlm_rl_entr:HJ9O
    szm_sze:5QRC szm_lze:48P8 szm_lgze:XMSY szm_hgze:5GN9 szm_szlge:5RAI szm_szhge:HW1V szm_lzlge:YH51 szm_lzhge:J17V
    szm_glnu:JNSA szm_glnu_norm:Y1RO szm_zsnu:4JP3 szm_zsnu_norm:VB3A szm_z_perc:P30P szm_gl_var:BYLV szm_zs_var:3NSA
    szm_zs_entr:GU8N
    dzm_sde:0GBI dzm_lde:MB4I dzm_lgze:S1RA dzm_hgze:K26C dzm_sdlge:RUVG dzm_sdhge:DKNJ dzm_ldlge:A7WM dzm_ldhge:KLTH
    dzm_glnu:VFT7 dzm_glnu_norm:7HP3 dzm_zdnu:V294 dzm_zdnu_norm:IATH dzm_z_perc:VIWW dzm_gl_var:QK93 dzm_zd_var:7WT1
    dzm_zd_entr:GBDU
    ngt_coarseness:QCDE ngt_contrast:65HE ngt_busyness:NQ30 ngt_complexity:HDEZ ngt_strength:1X9X
    ngl_lde:SODN ngl_hde:IMOQ ngl_lgce:TL9H ngl_hgce:OAE7 ngl_ldlge:EQ3F ngl_ldhge:JA6D ngl_hdlge:NBZI ngl_hdhge:9QMG
    ngl_glnu:FP8K ngl_glnu_norm:5SPA ngl_dcnu:Z87G ngl_dcnu_norm:OKJI ngl_dc_perc:6XV8 ngl_gl_var:1PFV ngl_dc_var:DNX2
    ngl_dc_entr:FCBV ngl_dc_energy:CAS9
    """
)
#: By the end of a tag, the code of how it is aggregated: over slices, directions, or in space.
AGGREGATIONS: Final = {
    "2D_avg": "BTW3",
    "2D_comb": "SUJT",
    "2_5D_avg": "JJUI",
    "2_5D_comb": "ZW7Z",
    "3D_avg": "ITBB",
    "3D_comb": "IAZD",
    "2D": "8QNN",
    "2_5D": "62GR",
    "3D": "KOBO",
}
#: pyradiomics' features of the original image that are IBSI's, by the comparison that docs/ibsi.md prints.
_PYRADIOMICS: Final = _pairs(
    """
    shape_MeshVolume:morph_volume shape_VoxelVolume:morph_vol_approx shape_SurfaceArea:morph_area_mesh
    shape_SurfaceVolumeRatio:morph_av shape_Sphericity:morph_sphericity shape_Maximum3DDiameter:morph_diam
    shape_Elongation:morph_pca_elongation shape_Flatness:morph_pca_flatness
    firstorder_Mean:stat_mean firstorder_Variance:stat_var firstorder_Skewness:stat_skew firstorder_Median:stat_median
    firstorder_Minimum:stat_min firstorder_10Percentile:stat_p10 firstorder_90Percentile:stat_p90
    firstorder_Maximum:stat_max firstorder_InterquartileRange:stat_iqr firstorder_Range:stat_range
    firstorder_MeanAbsoluteDeviation:stat_mad firstorder_RobustMeanAbsoluteDeviation:stat_rmad
    firstorder_Energy:stat_energy firstorder_RootMeanSquared:stat_rms firstorder_Entropy:ih_entropy
    firstorder_Uniformity:ih_uniformity
    glcm_Autocorrelation:cm_auto_corr glcm_ClusterProminence:cm_clust_prom glcm_ClusterShade:cm_clust_shade
    glcm_ClusterTendency:cm_clust_tend glcm_Contrast:cm_contrast glcm_Correlation:cm_corr
    glcm_DifferenceAverage:cm_diff_avg glcm_DifferenceEntropy:cm_diff_entr glcm_DifferenceVariance:cm_diff_var
    glcm_Id:cm_inv_diff glcm_Idm:cm_inv_diff_mom glcm_Idmn:cm_inv_diff_mom_norm glcm_Idn:cm_inv_diff_norm
    glcm_Imc1:cm_info_corr1 glcm_Imc2:cm_info_corr2 glcm_InverseVariance:cm_inv_var glcm_JointAverage:cm_joint_avg
    glcm_JointEnergy:cm_energy glcm_JointEntropy:cm_joint_entr glcm_MaximumProbability:cm_joint_max
    glcm_SumAverage:cm_sum_avg glcm_SumEntropy:cm_sum_entr glcm_SumSquares:cm_joint_var
    gldm_DependenceEntropy:ngl_dc_entr gldm_DependenceNonUniformity:ngl_dcnu
    gldm_DependenceNonUniformityNormalized:ngl_dcnu_norm gldm_DependenceVariance:ngl_dc_var
    gldm_GrayLevelNonUniformity:ngl_glnu gldm_GrayLevelVariance:ngl_gl_var gldm_HighGrayLevelEmphasis:ngl_hgce
    gldm_LargeDependenceEmphasis:ngl_hde gldm_LargeDependenceHighGrayLevelEmphasis:ngl_hdhge
    gldm_LargeDependenceLowGrayLevelEmphasis:ngl_hdlge gldm_LowGrayLevelEmphasis:ngl_lgce
    gldm_SmallDependenceEmphasis:ngl_lde gldm_SmallDependenceHighGrayLevelEmphasis:ngl_ldhge
    gldm_SmallDependenceLowGrayLevelEmphasis:ngl_ldlge
    glrlm_GrayLevelNonUniformity:rlm_glnu glrlm_GrayLevelNonUniformityNormalized:rlm_glnu_norm
    glrlm_GrayLevelVariance:rlm_gl_var glrlm_HighGrayLevelRunEmphasis:rlm_hgre glrlm_LongRunEmphasis:rlm_lre
    glrlm_LongRunHighGrayLevelEmphasis:rlm_lrhge glrlm_LongRunLowGrayLevelEmphasis:rlm_lrlge
    glrlm_LowGrayLevelRunEmphasis:rlm_lgre glrlm_RunEntropy:rlm_rl_entr glrlm_RunLengthNonUniformity:rlm_rlnu
    glrlm_RunLengthNonUniformityNormalized:rlm_rlnu_norm glrlm_RunPercentage:rlm_r_perc glrlm_RunVariance:rlm_rl_var
    glrlm_ShortRunEmphasis:rlm_sre glrlm_ShortRunHighGrayLevelEmphasis:rlm_srhge
    glrlm_ShortRunLowGrayLevelEmphasis:rlm_srlge
    glszm_GrayLevelNonUniformity:szm_glnu glszm_GrayLevelNonUniformityNormalized:szm_glnu_norm
    glszm_GrayLevelVariance:szm_gl_var glszm_HighGrayLevelZoneEmphasis:szm_hgze glszm_LargeAreaEmphasis:szm_lze
    glszm_LargeAreaHighGrayLevelEmphasis:szm_lzhge glszm_LargeAreaLowGrayLevelEmphasis:szm_lzlge
    glszm_LowGrayLevelZoneEmphasis:szm_lgze glszm_SizeZoneNonUniformity:szm_zsnu
    glszm_SizeZoneNonUniformityNormalized:szm_zsnu_norm glszm_SmallAreaEmphasis:szm_sze
    glszm_SmallAreaHighGrayLevelEmphasis:szm_szhge glszm_SmallAreaLowGrayLevelEmphasis:szm_szlge
    glszm_ZoneEntropy:szm_zs_entr glszm_ZonePercentage:szm_z_perc glszm_ZoneVariance:szm_zs_var
    ngtdm_Busyness:ngt_busyness ngtdm_Coarseness:ngt_coarseness ngtdm_Complexity:ngt_complexity
    ngtdm_Contrast:ngt_contrast ngtdm_Strength:ngt_strength
    """
)
_AGGREGATED: Final = re.compile(rf"(.+?)_({'|'.join(AGGREGATIONS)})")


def ibsi_code(column: str) -> tuple[str, str]:
    """IBSI's code of a feature and of its aggregation; each empty where there is none.

    A filtered image's feature has none, and neither has one that pyradiomics computes in another way than IBSI.

    >>> ibsi_code("original_shape_MeshVolume"), ibsi_code("cm_contrast_3D_avg"), ibsi_code("ih_mode")
    (('RNU0', ''), ('ACUI', 'ITBB'), ('AMMC', ''))
    >>> ibsi_code("original_firstorder_Kurtosis"), ibsi_code("wavelet-LLH_firstorder_Mean")
    (('', ''), ('', ''))
    """
    if column.startswith("original_"):
        tag = _PYRADIOMICS.get(column.removeprefix("original_"), "")
        return _CODES.get(tag, ""), ""
    parts = _AGGREGATED.fullmatch(column)
    if parts is None:
        return _CODES.get(column, ""), ""
    code = _CODES.get(parts[1], "")
    return code, AGGREGATIONS[parts[2]] if code else ""
