"""Learners: learn tasks one after another, answer for all of them, save and load."""

from lasem.data.sources import Source as Source
from lasem.learner.answers import Evaluation as Evaluation
from lasem.learner.answers import Mistake as Mistake
from lasem.learner.answers import ModelOverview as ModelOverview
from lasem.learner.answers import Prediction as Prediction
from lasem.learner.answers import TaskOverview as TaskOverview
from lasem.learner.export import plain_network as plain_network
from lasem.learner.growing import GrowingModel as GrowingModel
from lasem.learner.hub import pull as pull
from lasem.learner.hub import push as push
from lasem.learner.learner import Images as Images
from lasem.learner.learner import Learner as Learner
from lasem.learner.learner import find_device as find_device
from lasem.learner.model_folder import TaskInfo as TaskInfo
from lasem.learner.watching import MLflow as MLflow
from lasem.learner.watching import Observer as Observer
from lasem.learner.watching import TensorBoard as TensorBoard
from lasem.learner.watching import WandB as WandB
