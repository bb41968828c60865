# What pROC says of two scores of a synthetic cohort with ties: Rscript tests/r_survival/auc.R
# Writes auc.csv, auc_values.csv beside this file (pROC 1.18).
suppressMessages(library(pROC))
set.seed(5)
n <- 400
label <- rbinom(n, 1, 0.35)
first <- round(label + rnorm(n), 1)
second <- round(0.6 * label + 0.5 * first + rnorm(n), 1)
cohort <- data.frame(label, first, second)
rocs <- lapply(cohort[c("first", "second")], function(score) roc(label, score, levels = 0:1, direction = "<"))
curve <- coords(rocs$first, "all", ret = c("fpr", "tpr"))
values <- rbind(
  data.frame(what = "auc", column = names(rocs), value = sapply(rocs, function(one) as.numeric(auc(one)))),
  data.frame(what = "delong_lower", column = names(rocs), value = sapply(rocs, function(one) ci.auc(one)[1])),
  data.frame(what = "delong_upper", column = names(rocs), value = sapply(rocs, function(one) ci.auc(one)[3])),
  data.frame(what = "delong_error", column = "difference", value = sqrt(
    var(rocs$first) + var(rocs$second) - 2 * cov(rocs$first, rocs$second)
  )),
  data.frame(what = "fpr", column = "first", value = rev(curve$fpr)),
  data.frame(what = "tpr", column = "first", value = rev(curve$tpr))
)
at <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
write.csv(cohort, file.path(at, "auc.csv"), row.names = FALSE)
write.csv(values, file.path(at, "auc_values.csv"), row.names = FALSE)
